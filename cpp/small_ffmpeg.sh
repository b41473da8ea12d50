#!/usr/bin/env bash
# Builds an FFmpeg that reads and writes what the detector does and links nothing else: Debian's links
# a hundred libraries more. Needs nasm. FFmpeg's licence stays the LGPL.
set -euo pipefail

if [ $# != 2 ] || [ ! -x "$1/configure" ]; then
    echo "usage: cpp/small_ffmpeg.sh SOURCES PREFIX     (SOURCES: FFmpeg's, unpacked)
then:  cmake -S cpp -B build -DCMAKE_PREFIX_PATH=PREFIX" >&2
    exit 2
fi
mkdir -p "$2"
prefix=$(cd "$2" && pwd)
cd "$1"

list() { (IFS=,; echo "$*"); }
containers=(mov avi matroska mpegts flv h264 hevc mjpeg m4v)
streams=(rtsp rtp sdp mpjpeg)
codecs=(h264 hevc mpeg4 mjpeg vp8 vp9 rawvideo)
./configure --prefix="$prefix" --enable-shared --disable-static --disable-programs --disable-doc \
    --disable-autodetect --disable-everything \
    --disable-avfilter --disable-swresample --disable-postproc \
    --enable-protocol=file,tcp,udp,rtp,http \
    --enable-demuxer="$(list "${containers[@]}" "${streams[@]}")" \
    --enable-decoder="$(list "${codecs[@]}")" \
    --enable-parser=h264,hevc,mpeg4video,mjpeg,vp8,vp9 \
    --enable-indev=v4l2 --enable-encoder=mpeg4 --enable-muxer=mp4
make -j"$(nproc)" install
