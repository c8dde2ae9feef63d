// SPDX-License-Identifier: Apache-2.0
#include "image.hpp"

#include <algorithm>
#include <cmath>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <utility>

#include <jpeglib.h>
// after it
#include <jerror.h>
#include <png.h>

namespace {

using Bytes = std::vector<uint8_t>;

constexpr size_t kMostPixels = size_t(1) << 28;

void check_size(size_t height, size_t width) {
    if (height == 0 || width == 0 || height > kMostPixels / width) throw std::runtime_error("too large, or empty");
}

Bytes read_file(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error("cannot be opened");
    return Bytes(std::istreambuf_iterator<char>(file), {});
}

// libjpeg is C: an error jumps back to where the call was made. No object with a destructor may be made in between.
struct JpegErrors {
    jpeg_error_mgr manager;
    std::jmp_buf back;
    char message[JMSG_LENGTH_MAX];
};

void jpeg_failed(j_common_ptr state) {
    auto* errors = reinterpret_cast<JpegErrors*>(state->err);
    state->err->format_message(state, errors->message);
    std::longjmp(errors->back, 1);
}

// A warning means that the data is damaged, and that grey would stand where they end.
void jpeg_warned(j_common_ptr state, int level) {
    if (level < 0) jpeg_failed(state);
}

// The EXIF tag 0x0112 of an APP1 segment: 1..8, and 1 where there is none.
int orientation_of(const JOCTET* data, unsigned length) {
    if (length < 14 || std::memcmp(data, "Exif\0\0", 6) != 0) return 1;
    const JOCTET* tiff = data + 6;
    const size_t size = length - 6;
    const bool is_little = tiff[0] == 'I';
    auto number = [&](size_t at, int bytes) -> uint32_t {
        uint32_t value = 0;
        if (at + bytes > size) return 0;
        for (int i = 0; i < bytes; ++i) value |= uint32_t(tiff[at + i]) << 8 * (is_little ? i : bytes - 1 - i);
        return value;
    };
    const size_t directory = number(4, 4);
    const uint32_t entries = number(directory, 2);
    for (uint32_t i = 0; i < entries; ++i) {
        const size_t entry = directory + 2 + 12 * size_t(i);
        if (number(entry, 2) != 0x0112) continue;
        const uint32_t value = number(entry + 8, 2);
        return value >= 1 && value <= 8 ? int(value) : 1;
    }
    return 1;
}

Image turned(const Image& image, int orientation) {
    if (orientation == 1) return image;
    const bool is_transposed = orientation > 4;
    Image result(is_transposed ? image.width : image.height, is_transposed ? image.height : image.width);
    for (int y = 0; y < image.height; ++y) {
        for (int x = 0; x < image.width; ++x) {
            const int flipped_x = image.width - 1 - x, flipped_y = image.height - 1 - y;
            int to_y = y, to_x = x;
            switch (orientation) {
                case 2: to_x = flipped_x; break;
                case 3: to_x = flipped_x, to_y = flipped_y; break;
                case 4: to_y = flipped_y; break;
                case 5: to_y = x, to_x = y; break;
                case 6: to_y = x, to_x = flipped_y; break;
                case 7: to_y = flipped_x, to_x = flipped_y; break;
                case 8: to_y = flipped_x, to_x = y; break;
            }
            std::copy_n(image.row(y) + 3 * x, 3, result.row(to_y) + 3 * to_x);
        }
    }
    return result;
}

// False, with a message in `errors`, for a file that cannot be read. What it fills belongs to the caller, as a jump
// back leaves the variables of this function undefined.
bool read_jpeg(const Bytes& data, Image& image, int& orientation, JpegErrors& errors) {
    jpeg_decompress_struct state{};
    state.err = jpeg_std_error(&errors.manager);
    errors.manager.error_exit = jpeg_failed;
    errors.manager.emit_message = jpeg_warned;
    if (setjmp(errors.back)) {
        jpeg_destroy_decompress(&state);
        return false;
    }
    jpeg_create_decompress(&state);
    jpeg_mem_src(&state, data.data(), static_cast<unsigned long>(data.size()));
    jpeg_save_markers(&state, JPEG_APP0 + 1, 0xffff);
    jpeg_read_header(&state, TRUE);
    for (auto* marker = state.marker_list; marker; marker = marker->next) {
        if (marker->marker == JPEG_APP0 + 1) orientation = orientation_of(marker->data, marker->data_length);
    }
    if (size_t(state.image_width) * state.image_height > kMostPixels) ERREXIT(&state, JERR_IMAGE_TOO_BIG);
    state.out_color_space = JCS_RGB;  // four inks it refuses
    jpeg_start_decompress(&state);
    image = Image(int(state.output_height), int(state.output_width));
    while (state.output_scanline < state.output_height) {
        JSAMPROW row = image.row(int(state.output_scanline));
        jpeg_read_scanlines(&state, &row, 1);
    }
    jpeg_finish_decompress(&state);
    jpeg_destroy_decompress(&state);
    return true;
}

Image decode_jpeg(const Bytes& data) {
    JpegErrors errors{};
    Image image;
    int orientation = 1;
    if (!read_jpeg(data, image, orientation, errors)) throw std::runtime_error(errors.message);
    return turned(image, orientation);
}

struct PngSource {
    const Bytes* data;
    size_t at;
};

void png_read(png_structp state, png_bytep to, png_size_t length) {
    auto* source = static_cast<PngSource*>(png_get_io_ptr(state));
    if (length > source->data->size() - source->at) png_error(state, "cut off");
    std::memcpy(to, source->data->data() + source->at, length);
    source->at += length;
}

// As `read_jpeg`.
bool read_png(PngSource& source, Image& image, std::vector<png_bytep>& rows) {
    png_structp state = png_create_read_struct(
        PNG_LIBPNG_VER_STRING, nullptr,
        [](png_structp failed, png_const_charp) { png_longjmp(failed, 1); }, [](png_structp, png_const_charp) {});
    png_infop info = png_create_info_struct(state);
    if (setjmp(png_jmpbuf(state))) {
        png_destroy_read_struct(&state, &info, nullptr);
        return false;
    }
    png_set_read_fn(state, &source, png_read);
    png_read_info(state, info);
    if (size_t(png_get_image_width(state, info)) * png_get_image_height(state, info) > kMostPixels) {
        png_error(state, "too large");
    }
    png_set_expand(state);       // palettes, and less than 8 bits
    png_set_strip_16(state);     // the upper 8 bits
    png_set_strip_alpha(state);  // what is transparent keeps its colour
    png_set_gray_to_rgb(state);
    png_set_interlace_handling(state);
    png_read_update_info(state, info);
    image = Image(int(png_get_image_height(state, info)), int(png_get_image_width(state, info)));
    for (int y = 0; y < image.height; ++y) rows.push_back(image.row(y));
    png_read_image(state, rows.data());
    png_read_end(state, nullptr);
    png_destroy_read_struct(&state, &info, nullptr);
    return true;
}

Image decode_png(const Bytes& data) {
    PngSource source{&data, 0};
    Image image;
    std::vector<png_bytep> rows;
    if (!read_png(source, image, rows)) throw std::runtime_error("damaged, cut off, or too large");
    return image;
}

// Where an output pixel lies between two input pixels, in 2048ths, as OpenCV counts.
struct Tap {
    int first, second;
    int weight_first, weight_second;
};

// At the edge it weighs the same row twice, and the column once, which is rounded otherwise.
std::vector<Tap> taps(int from, int to, bool is_row) {
    std::vector<Tap> result;
    const double scale = double(from) / to;
    for (int i = 0; i < to; ++i) {
        float place = float((i + 0.5) * scale - 0.5);
        int first = int(std::floor(place));
        place -= float(first);
        if (!is_row && (first < 0 || first >= from - 1)) place = 0;
        result.push_back({std::clamp(first, 0, from - 1), std::clamp(first + 1, 0, from - 1),
                          int(std::lrintf((1 - place) * 2048)), int(std::lrintf(place * 2048))});
    }
    return result;
}

}  // namespace

Image decode(const std::string& path) {
    const Bytes data = read_file(path);
    if (data.size() > 3 && data[0] == 0xff && data[1] == 0xd8) return decode_jpeg(data);
    if (data.size() > 8 && png_sig_cmp(data.data(), 0, 8) == 0) return decode_png(data);
    throw std::runtime_error("neither JPEG nor PNG");
}

Image resize(const Image& image, int height, int width) {
    check_size(size_t(height), size_t(width));
    if (height == image.height && width == image.width) return image;
    Image result(height, width);
    if (2 * height == image.height && 2 * width == image.width) {
        // OpenCV takes the mean of four here, which is rounded otherwise.
        for (int y = 0; y < height; ++y) {
            const uint8_t *upper = image.row(2 * y), *lower = image.row(2 * y + 1);
            for (int i = 0; i < 3 * width; ++i) {
                const int at = i / 3 * 6 + i % 3;
                result.row(y)[i] = uint8_t((upper[at] + upper[at + 3] + lower[at] + lower[at + 3] + 2) >> 2);
            }
        }
        return result;
    }
    const std::vector<Tap> columns = taps(image.width, width, false), lines = taps(image.height, height, true);
    auto across = [&](const uint8_t* row, std::vector<int>& sums) {
        for (int x = 0; x < width; ++x) {
            const Tap& tap = columns[x];
            for (int c = 0; c < 3; ++c) {
                sums[3 * x + c] = row[3 * tap.first + c] * tap.weight_first + row[3 * tap.second + c] * tap.weight_second;
            }
        }
    };
    std::vector<int> upper(size_t(width) * 3), lower(size_t(width) * 3);
    for (int y = 0; y < height; ++y) {
        const Tap& tap = lines[y];
        across(image.row(tap.first), upper);
        across(image.row(tap.second), lower);
        uint8_t* row = result.row(y);
        for (size_t i = 0; i < upper.size(); ++i) {
            // The products are cut off as OpenCV cuts them, so that the pixels are the same.
            const int sum = ((tap.weight_first * (upper[i] >> 4)) >> 16) + ((tap.weight_second * (lower[i] >> 4)) >> 16);
            row[i] = uint8_t((sum + 2) >> 2);
        }
    }
    return result;
}

Image crop(const Image& image, int height, int width) {
    if (height > image.height || width > image.width) throw std::invalid_argument("smaller than CropImage's size");
    Image result(height, width);
    const int top = (image.height - height) / 2, left = (image.width - width) / 2;
    for (int y = 0; y < height; ++y) {
        std::copy_n(image.row(top + y) + 3 * left, 3 * size_t(width), result.row(y));
    }
    return result;
}
