// SPDX-License-Identifier: Apache-2.0
// Images as the training framework sees them: decoded by libjpeg and libpng, resized as OpenCV's INTER_LINEAR does.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

struct Image {
    int height = 0;
    int width = 0;
    std::vector<uint8_t> pixels;  // [height, width, 3], red first

    Image() = default;
    Image(int height, int width) : height(height), width(width), pixels(size_t(height) * width * 3) {}
    uint8_t* row(int y) { return pixels.data() + size_t(y) * width * 3; }
    const uint8_t* row(int y) const { return pixels.data() + size_t(y) * width * 3; }
};

// The image of a JPEG or PNG file, turned as its camera was held; throws std::runtime_error for what is none.
Image decode(const std::string& path);

Image resize(const Image& image, int height, int width);

// The middle of the image; throws std::invalid_argument where it is smaller than that.
Image crop(const Image& image, int height, int width);
