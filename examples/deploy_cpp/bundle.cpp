// SPDX-License-Identifier: Apache-2.0
#include "bundle.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include <yaml.h>

namespace {

Refused not_here(const std::string& what) {
    return Refused(what + " is not in this example; use tools/infer.py --bundle");
}

// A YAML file as a tree; what is not there is null.
class Document {
public:
    explicit Document(const std::string& path) {
        std::FILE* file = std::fopen(path.c_str(), "rb");
        if (!file) throw Refused(path + ": cannot be opened");
        yaml_parser_t parser;
        yaml_parser_initialize(&parser);
        yaml_parser_set_input_file(&parser, file);
        const bool is_read = yaml_parser_load(&parser, &document_);
        yaml_parser_delete(&parser);
        std::fclose(file);
        if (!is_read) throw Refused(path + ": not YAML");
    }
    ~Document() { yaml_document_delete(&document_); }
    Document(const Document&) = delete;
    Document& operator=(const Document&) = delete;

    using Node = const yaml_node_t*;
    Node root() { return yaml_document_get_root_node(&document_); }

    // The pairs of a mapping, in order.
    std::vector<std::pair<std::string, Node>> pairs(Node node) {
        std::vector<std::pair<std::string, Node>> result;
        if (!node || node->type != YAML_MAPPING_NODE) return result;
        for (auto* pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top; ++pair) {
            result.emplace_back(text(at(pair->key)), at(pair->value));
        }
        return result;
    }
    Node get(Node node, const std::string& key) {
        for (auto& [name, value] : pairs(node)) {
            if (name == key) return is_null(value) ? nullptr : value;
        }
        return nullptr;
    }
    std::vector<Node> items(Node node) {
        std::vector<Node> result;
        if (!node || node->type != YAML_SEQUENCE_NODE) return result;
        for (auto* item = node->data.sequence.items.start; item < node->data.sequence.items.top; ++item) {
            result.push_back(at(*item));
        }
        return result;
    }
    static std::string text(Node node) {
        if (!node || node->type != YAML_SCALAR_NODE) return "";
        return std::string(reinterpret_cast<const char*>(node->data.scalar.value), node->data.scalar.length);
    }
    static bool is_null(Node node) {
        return node && node->type == YAML_SCALAR_NODE && node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
               (text(node).empty() || text(node) == "null" || text(node) == "~");
    }
    // Also of the form 1.0/255.0.
    static double number(Node node, const char* what) {
        const std::string said = text(node);
        char* end = nullptr;
        double value = std::strtod(said.c_str(), &end);
        if (*end == '/') value /= std::strtod(end + 1, &end);
        if (said.empty() || *end || !std::isfinite(value)) throw Refused(std::string(what) + ": not a number");
        return value;
    }

private:
    Node at(int index) { return yaml_document_get_node(&document_, index); }
    yaml_document_t document_{};
};

int whole(Document::Node node, const char* what) {
    const double value = Document::number(node, what);
    if (value < 1 || value > 1e6 || value != std::floor(value)) throw Refused(std::string(what) + ": not a size");
    return int(value);
}

// A size: one number for a square, or [width, height].
void read_size(Document& document, Document::Node node, const char* what, Step& step) {
    const auto items = document.items(node);
    if (!items.empty() && items.size() != 2) throw Refused(std::string(what) + ": not [width, height]");
    step.width = whole(items.empty() ? node : items[0], what);
    step.height = whole(items.empty() ? node : items[1], what);
}

void read_channels(Document& document, Document::Node node, const char* what, std::array<float, 3>& channels) {
    const auto items = document.items(node);
    if (!node) return;
    if (items.size() != 3) throw Refused(std::string(what) + ": not three numbers");
    for (size_t c = 0; c < 3; ++c) channels[c] = float(Document::number(items[c], what));
}

void read_step(Document& document, const std::string& name, Document::Node given, Bundle& bundle) {
    Step step{};
    auto said = [&](const char* key) { return Document::text(document.get(given, key)); };
    if (name == "DecodeImage") {
        if (said("to_rgb") == "false" || said("channel_first") == "true") throw not_here("DecodeImage to other than RGB");
        return;
    }
    if (name == "ToCHWImage") return;
    if (name == "ResizeImage") {
        const std::string interpolation = said("interpolation");
        if (said("backend") == "pil" || !(interpolation.empty() || interpolation == "bilinear")) {
            throw not_here("ResizeImage other than bilinear by cv2");
        }
        if (auto shorter = document.get(given, "resize_short")) {
            step.kind = Step::kResizeShort;
            step.width = step.height = whole(shorter, "resize_short");
        } else {
            step.kind = Step::kResize;
            read_size(document, document.get(given, "size"), "ResizeImage.size", step);
        }
    } else if (name == "CropImage") {
        step.kind = Step::kCrop;
        read_size(document, document.get(given, "size"), "CropImage.size", step);
    } else if (name == "NormalizeImage") {
        step.kind = Step::kNormalize;
        if (auto scale = document.get(given, "scale")) step.scale = float(Document::number(scale, "scale"));
        read_channels(document, document.get(given, "mean"), "mean", step.mean);
        read_channels(document, document.get(given, "std"), "std", step.std);
        if (said("order") == "chw" || said("output_fp16") == "true" || said("channel_num") == "4") {
            throw not_here("NormalizeImage other than of [H, W, 3] to float32");
        }
    } else {
        throw not_here(name);
    }
    bundle.steps.push_back(step);
}

}  // namespace

Bundle read_bundle(const std::string& directory) {
    Document document(directory + "/inference.yml");
    Bundle bundle;
    const auto root = document.root();
    const auto graph = document.get(root, "Global");
    bundle.takes_bytes = Document::text(document.get(graph, "dtype")) == "uint8";
    bundle.ends_in_softmax = Document::text(document.get(graph, "softmax")) == "true";
    for (auto operation : document.items(document.get(document.get(root, "PreProcess"), "transform_ops"))) {
        for (auto& [name, given] : document.pairs(operation)) read_step(document, name, given, bundle);
    }
    const auto answers = document.pairs(document.get(root, "PostProcess"));
    if (answers.size() != 1 || answers[0].first != "Topk") throw not_here("a postprocessing other than Topk");
    if (auto topk = document.get(answers[0].second, "topk")) bundle.topk = size_t(whole(topk, "topk"));
    for (auto label : document.items(document.get(answers[0].second, "label_list"))) {
        bundle.labels.push_back(Document::text(label));
    }
    const bool normalizes = std::any_of(bundle.steps.begin(), bundle.steps.end(),
                                        [](const Step& step) { return step.kind == Step::kNormalize; });
    const bool is_last = !bundle.steps.empty() && bundle.steps.back().kind == Step::kNormalize;
    if (normalizes == bundle.takes_bytes || (normalizes && !is_last)) {
        throw not_here("a preprocessing that does not end in the normalization");
    }
    return bundle;
}

Input prepare(const Bundle& bundle, Image image) {
    Input input;
    for (const Step& step : bundle.steps) {
        if (step.kind == Step::kResize) image = resize(image, step.height, step.width);
        if (step.kind == Step::kCrop) image = crop(image, step.height, step.width);
        if (step.kind == Step::kResizeShort) {
            const double factor = double(step.width) / std::min(image.width, image.height);
            // To the nearest even number where it lies in the middle, as Python rounds.
            image = resize(image, int(std::nearbyint(image.height * factor)), int(std::nearbyint(image.width * factor)));
        }
        if (step.kind == Step::kNormalize) {
            const size_t plane = size_t(image.height) * image.width;
            input.floats.resize(3 * plane);
            for (size_t i = 0; i < plane; ++i) {
                for (size_t c = 0; c < 3; ++c) {
                    const float scaled = float(image.pixels[3 * i + c]) * step.scale;
                    input.floats[c * plane + i] = (scaled - step.mean[c]) / step.std[c];
                }
            }
        }
    }
    input.height = image.height;
    input.width = image.width;
    if (bundle.takes_bytes) input.bytes = std::move(image.pixels);
    return input;
}
