#include "decoder.hpp"

extern "C" {
#include <libavutil/display.h>
}

#ifdef __linux__
#include <dlfcn.h>
#endif

#include <algorithm>
#include <array>
#include <cmath>
#include <thread>
#include <utility>

namespace raudo::app {
namespace {

constexpr std::chrono::seconds patience{10};  // with a camera or a stream
constexpr std::chrono::milliseconds pause{1};  // until a camera is asked again
constexpr int max_errors = 1000;              // in a row
constexpr int max_threads = 16;
constexpr int row_alignment = 32;             // pixels: FFmpeg's vector code writes whole registers

/// Returns FFmpeg's reader of cameras. Its library brings 50 others, so it is loaded here alone; it
/// has the version number of libavformat.
auto* camera_format() {
#ifdef __linux__
    if (void* devices = dlopen("libavdevice.so." AV_STRINGIFY(LIBAVFORMAT_VERSION_MAJOR), RTLD_NOW)) {
        if (void* found = dlsym(devices, "avdevice_register_all")) {
            reinterpret_cast<void (*)()>(found)();
        }
    }
#endif
    return av_find_input_format("video4linux2");
}

const std::int32_t* display_matrix(const AVStream& stream) {
#if LIBAVFORMAT_VERSION_INT >= AV_VERSION_INT(60, 15, 100)
    const AVPacketSideData* found =
        av_packet_side_data_get(stream.codecpar->coded_side_data,
                                stream.codecpar->nb_coded_side_data, AV_PKT_DATA_DISPLAYMATRIX);
    const std::uint8_t* bytes = found == nullptr ? nullptr : found->data;
#else
    const std::uint8_t* bytes =
        av_stream_get_side_data(&stream, AV_PKT_DATA_DISPLAYMATRIX, nullptr);
#endif
    return reinterpret_cast<const std::int32_t*>(bytes);
}

/// Returns how many quarters of a turn, clockwise, show a stream upright.
int quarter_turns(const AVStream& stream) {
    const std::int32_t* matrix = display_matrix(stream);
    const double degrees = matrix == nullptr ? 0 : -av_display_rotation_get(matrix);
    return std::isnan(degrees) ? 0 : (static_cast<int>(std::lround(degrees / 90)) + 4) % 4;
}

/// A quarter of the cores: the engine takes all of them, and each thread keeps frames of its own.
int decoding_threads() {
    const auto cores = static_cast<int>(std::thread::hardware_concurrency());
    return std::clamp(cores / 4, 1, max_threads);
}

/// Returns an image of that size, in the memory of `last` where it fits.
cv::Mat room_for(int height, int width, cv::Mat last) {
    const int columns = (width + row_alignment - 1) / row_alignment * row_alignment;
    if (last.rows == height && last.cols == width && last.step[0] == columns * last.elemSize()) {
        return last;
    }
    return cv::Mat(height, columns, CV_8UC3).colRange(0, width);
}

}  // namespace

Decoder::Decoder(const std::string& name, Kind kind, const std::atomic<bool>& stop)
    : kind_(kind), stop_(stop) {
    av_log_set_level(AV_LOG_QUIET);  // this program says itself what is wrong
    if (open_input(name) && !open_codec()) {
        codec_.reset();
    }
}

bool Decoder::open_input(const std::string& name) {
    AVFormatContext* format = avformat_alloc_context();
    format->interrupt_callback = {&Decoder::is_over, this};
    AVDictionary* options = nullptr;
    av_dict_set(&options, "rtsp_transport", "tcp", 0);
    const bool camera = kind_ == Kind::camera;
    if (camera) {
        format->flags |= AVFMT_FLAG_NONBLOCK;  // its reader never asks whether it is over
    }
    await();
    const int status = avformat_open_input(&format, (camera ? "/dev/video" + name : name).c_str(),
                                           camera ? camera_format() : nullptr, &options);
    av_dict_free(&options);
    if (status < 0) {
        return false;  // it freed the context
    }
    input_.reset(format);
    await();
    return avformat_find_stream_info(format, nullptr) >= 0;
}

bool Decoder::open_codec() {
    const int index =
        av_find_best_stream(input_.get(), AVMEDIA_TYPE_VIDEO, -1, -1, nullptr, 0);
    if (index < 0) {
        return false;
    }
    stream_ = input_->streams[index];
    const AVCodec* codec = avcodec_find_decoder(stream_->codecpar->codec_id);
    codec_.reset(codec == nullptr ? nullptr : avcodec_alloc_context3(codec));
    if (codec_ == nullptr || avcodec_parameters_to_context(codec_.get(), stream_->codecpar) < 0) {
        return false;
    }
    codec_->pkt_timebase = stream_->time_base;
    codec_->thread_count = decoding_threads();
    if (kind_ != Kind::file) {
        codec_->thread_type = FF_THREAD_SLICE;  // a thread a frame would hold frames back
    }
    quarter_turns_ = quarter_turns(*stream_);
    return avcodec_open2(codec_.get(), codec, nullptr) >= 0;
}

bool Decoder::read(cv::Mat& image) {
    for (int errors = 0; errors < max_errors && !stop_;) {
        const int status = avcodec_receive_frame(codec_.get(), picture_.get());
        if (status == 0) {
            convert(image);
            return true;
        }
        if (status == AVERROR_EOF) {
            return false;
        }
        if (status == AVERROR(EAGAIN)) {
            feed();
        } else {
            ++damaged_;
            ++errors;
        }
    }
    return false;
}

/// Gives the codec the next packet, or tells it that there is none.
void Decoder::feed() {
    if (!gave_up_) {
        await();
    }
    int status = av_read_frame(input_.get(), packet_.get());
    while (status == AVERROR(EAGAIN) && is_over(this) == 0) {
        std::this_thread::sleep_for(pause);
        status = av_read_frame(input_.get(), packet_.get());
    }
    gave_up_ = is_over(this) != 0;  // what a parser holds back then still comes
    if (status < 0) {
        avcodec_send_packet(codec_.get(), nullptr);
        return;
    }
    if (packet_->stream_index == stream_->index &&
        avcodec_send_packet(codec_.get(), packet_.get()) < 0) {
        ++damaged_;
    }
    av_packet_unref(packet_.get());
}

void Decoder::convert(cv::Mat& image) {
    const int height = picture_->height, width = picture_->width;
    scaler_.reset(sws_getCachedContext(scaler_.release(), width, height,
                                       static_cast<AVPixelFormat>(picture_->format), width, height,
                                       AV_PIX_FMT_BGR24, SWS_BICUBIC, nullptr, nullptr, nullptr));
    CV_Assert(scaler_ != nullptr);
    cv::Mat upright = room_for(height, width, std::move(image));
    const std::array rows = {upright.data};
    const std::array strides = {static_cast<int>(upright.step[0])};
    sws_scale(scaler_.get(), picture_->data, picture_->linesize, 0, height, rows.data(),
              strides.data());
    if (quarter_turns_ != 0) {
        cv::Mat turned;
        cv::rotate(upright, turned, quarter_turns_ - 1);  // ROTATE_90_CLOCKWISE is 0
        upright = turned;
    }
    image = upright;
    const std::int64_t start = stream_->start_time == AV_NOPTS_VALUE ? 0 : stream_->start_time;
    time_ms_.reset();
    if (picture_->best_effort_timestamp != AV_NOPTS_VALUE) {
        time_ms_ = static_cast<double>(picture_->best_effort_timestamp - start) *
                   av_q2d(stream_->time_base) * 1000;
    }
}

double Decoder::fps() const {
    const AVRational told = stream_->avg_frame_rate.num != 0 ? stream_->avg_frame_rate
                                                              : stream_->r_frame_rate;
    return told.den != 0 ? av_q2d(told) : 0;
}

double Decoder::frames() const {
    if (stream_->nb_frames > 0) {
        return static_cast<double>(stream_->nb_frames);
    }
    return std::floor(static_cast<double>(input_->duration) / AV_TIME_BASE * fps() + 0.5);
}

void Decoder::await() {
    deadline_ = std::chrono::steady_clock::now() + patience;
}

/// Whether FFmpeg should give up what it waits for.
int Decoder::is_over(void* self) {
    const auto& decoder = *static_cast<const Decoder*>(self);
    return decoder.stop_ ||
           (decoder.kind_ != Kind::file && std::chrono::steady_clock::now() > decoder.deadline_);
}

}  // namespace raudo::app
