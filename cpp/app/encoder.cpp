#include "encoder.hpp"

#include <array>

namespace raudo::app {
namespace {

constexpr int max_time_base = 65535;  // that MPEG-4 Part 2 has room for
constexpr int quantizer = 3;          // of 31, the lower the better

}  // namespace

Encoder::Encoder(const std::filesystem::path& path, double fps, cv::Size size) {
    const AVCodec* codec = avcodec_find_encoder(AV_CODEC_ID_MPEG4);
    codec_.reset(codec == nullptr ? nullptr : avcodec_alloc_context3(codec));
    if (codec_ == nullptr) {
        return;
    }
    codec_->width = picture_->width = size.width;
    codec_->height = picture_->height = size.height;
    codec_->pix_fmt = AV_PIX_FMT_YUV420P;
    picture_->format = AV_PIX_FMT_YUV420P;
    codec_->framerate = av_d2q(fps, max_time_base);
    codec_->time_base = av_inv_q(codec_->framerate);
    codec_->flags |= AV_CODEC_FLAG_QSCALE | AV_CODEC_FLAG_GLOBAL_HEADER;
    codec_->global_quality = FF_QP2LAMBDA * quantizer;
    scaler_.reset(sws_getContext(size.width, size.height, AV_PIX_FMT_BGR24, size.width, size.height,
                                 codec_->pix_fmt, SWS_BICUBIC, nullptr, nullptr, nullptr));
    open_ = scaler_ != nullptr && avcodec_open2(codec_.get(), codec, nullptr) >= 0 && open(path);
}

bool Encoder::open(const std::filesystem::path& path) {
    AVFormatContext* format = nullptr;
    if (avformat_alloc_output_context2(&format, nullptr, "mp4", path.string().c_str()) < 0) {
        return false;
    }
    output_.reset(format);
    stream_ = avformat_new_stream(format, nullptr);
    if (stream_ == nullptr ||
        avcodec_parameters_from_context(stream_->codecpar, codec_.get()) < 0) {
        return false;
    }
    stream_->time_base = codec_->time_base;
    stream_->avg_frame_rate = codec_->framerate;
    return avio_open(&format->pb, path.string().c_str(), AVIO_FLAG_WRITE) >= 0 &&
           avformat_write_header(format, nullptr) >= 0;
}

bool Encoder::write(const cv::Mat& image) {
    // The codec may still read the last picture: av_frame_get_buffer gives it fresh memory.
    const int format = picture_->format, width = picture_->width, height = picture_->height;
    av_frame_unref(picture_.get());
    picture_->format = format;
    picture_->width = width;
    picture_->height = height;
    if (av_frame_get_buffer(picture_.get(), 0) < 0) {
        return false;
    }
    const std::array<const std::uint8_t*, 1> rows = {image.data};
    const std::array strides = {static_cast<int>(image.step[0])};
    sws_scale(scaler_.get(), rows.data(), strides.data(), 0, height, picture_->data,
              picture_->linesize);
    picture_->pts = written_++;
    picture_->quality = codec_->global_quality;
    return avcodec_send_frame(codec_.get(), picture_.get()) >= 0 && drain();
}

bool Encoder::drain() {
    int status = 0;
    while ((status = avcodec_receive_packet(codec_.get(), packet_.get())) >= 0) {
        packet_->stream_index = stream_->index;
        packet_->duration = 1;
        av_packet_rescale_ts(packet_.get(), codec_->time_base, stream_->time_base);
        if (av_interleaved_write_frame(output_.get(), packet_.get()) < 0) {
            return false;
        }
    }
    return status == AVERROR(EAGAIN) || status == AVERROR_EOF;
}

bool Encoder::finish() {
    const bool whole = avcodec_send_frame(codec_.get(), nullptr) >= 0 && drain() &&
                       av_write_trailer(output_.get()) >= 0;
    return avio_closep(&output_->pb) >= 0 && whole;
}

}  // namespace raudo::app
