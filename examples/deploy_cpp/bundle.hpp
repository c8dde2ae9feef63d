// SPDX-License-Identifier: Apache-2.0
// What a bundle's inference.yml says of its preprocessing, labels and output.
#pragma once

#include <array>
#include <stdexcept>
#include <string>
#include <vector>

#include "image.hpp"

// The bundle asks for what is not in this example, or is no bundle.
struct Refused : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct Step {
    enum Kind { kResizeShort, kResize, kCrop, kNormalize } kind;
    int width = 0;
    int height = 0;
    float scale = 1.0f / 255;
    std::array<float, 3> mean{0.485f, 0.456f, 0.406f};
    std::array<float, 3> std{0.229f, 0.224f, 0.225f};
};

struct Bundle {
    std::vector<Step> steps;
    bool takes_bytes = false;  // uint8 [N, H, W, 3]; otherwise float32 [N, 3, H, W]
    bool ends_in_softmax = true;
    size_t topk = 1;
    std::vector<std::string> labels;
};

// Reads DIRECTORY/inference.yml; throws Refused.
Bundle read_bundle(const std::string& directory);

// A file's image as the graph's input, without a batch axis. One of the two is filled.
struct Input {
    int height = 0;
    int width = 0;
    std::vector<uint8_t> bytes;
    std::vector<float> floats;
};

Input prepare(const Bundle& bundle, Image image);
