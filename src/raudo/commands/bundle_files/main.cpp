// Loads an engine and detects in one grey image: put your own frames in its place.
#include <cstdint>
#include <exception>
#include <iostream>
#include <raudo/detector.hpp>
#include <vector>

int main(int count, char** words) {
    if (count != 2) {
        std::cerr << "usage: example ENGINE\n";
        return 2;
    }
    try {
        raudo::Detector detector(words[1]);
        std::cout << "input " << detector.width() << "x" << detector.height() << ", "
                  << detector.classes().size() << " classes\n";

        const int height = 480, width = 640;
        const std::vector<std::uint8_t> bgr(std::size_t{height} * width * 3, 128);
        for (const raudo::Detection& found : detector.detect({bgr.data(), height, width, 0})) {
            std::cout << detector.classes()[static_cast<std::size_t>(found.label)] << " "
                      << found.score << "\n";
        }
    } catch (const raudo::Error& error) {
        std::cerr << "error: " << error.what() << "\nhint: " << error.hint() << "\n";
        return 2;
    } catch (const std::exception& error) {
        std::cerr << "error: " << error.what() << "\n";
        return 2;
    }
    return 0;
}
