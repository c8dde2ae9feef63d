// SPDX-License-Identifier: Apache-2.0
// Classify images with an exported model, by ONNX Runtime:
//
//     classify BUNDLE IMAGE...                                     a line of JSON for each image
//     classify BUNDLE --list FILE --root DIR --accuracy acc.log    the accuracy on a list of "path label" lines
//
// Exit code 2: the command or the bundle asks for what is not in this example; 3: an image cannot be read.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <numeric>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <onnxruntime_cxx_api.h>

#include "bundle.hpp"
#include "image.hpp"

namespace {

constexpr int kUsage = 2, kData = 3;
constexpr size_t kRanks[] = {1, 5};

struct Arguments {
    std::string bundle, graph = "model.onnx", list, root, accuracy;
    int threads = 0;  // as many as there are cores
    std::vector<std::string> images;
};

class Classifier {
public:
    explicit Classifier(const Arguments& arguments)
        : bundle(read_bundle(arguments.bundle)),
          session_(environment_, (arguments.bundle + "/" + arguments.graph).c_str(), options(arguments.threads)) {
        Ort::AllocatorWithDefaultOptions allocator;
        input_ = session_.GetInputNameAllocated(0, allocator).get();
        output_ = session_.GetOutputNameAllocated(0, allocator).get();
    }

    // The probability of each class. Throws std::runtime_error for a file that is no image.
    std::vector<float> operator()(const std::string& path) {
        Input input = prepare(bundle, decode(path));
        const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
        Ort::Value tensor{nullptr};
        if (bundle.takes_bytes) {
            const int64_t shape[] = {1, input.height, input.width, 3};
            tensor = Ort::Value::CreateTensor<uint8_t>(memory, input.bytes.data(), input.bytes.size(), shape, 4);
        } else {
            const int64_t shape[] = {1, 3, input.height, input.width};
            tensor = Ort::Value::CreateTensor<float>(memory, input.floats.data(), input.floats.size(), shape, 4);
        }
        const char* inputs[] = {input_.c_str()};
        const char* outputs[] = {output_.c_str()};
        auto answers = session_.Run(Ort::RunOptions{nullptr}, inputs, &tensor, 1, outputs, 1);
        const float* values = answers[0].GetTensorData<float>();
        std::vector<float> probabilities(values, values + answers[0].GetTensorTypeAndShapeInfo().GetElementCount());
        if (!bundle.ends_in_softmax) softmax(probabilities);
        return probabilities;
    }

    const Bundle bundle;

private:
    static Ort::SessionOptions options(int threads) {
        Ort::SessionOptions options;
        options.SetIntraOpNumThreads(threads);
        options.SetLogSeverityLevel(3);  // errors
        return options;
    }
    static void softmax(std::vector<float>& values) {
        const float largest = *std::max_element(values.begin(), values.end());
        for (float& value : values) value = std::exp(value - largest);
        const float sum = std::accumulate(values.begin(), values.end(), 0.0f);
        for (float& value : values) value /= sum;
    }

    Ort::Env environment_{ORT_LOGGING_LEVEL_ERROR, "classify"};
    Ort::Session session_;
    std::string input_, output_;
};

// Class numbers, the most probable first; of equal ones the smaller number first.
std::vector<size_t> ranking(const std::vector<float>& probabilities) {
    std::vector<size_t> order(probabilities.size());
    std::iota(order.begin(), order.end(), size_t(0));
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t one, size_t other) { return probabilities[one] > probabilities[other]; });
    return order;
}

std::string quoted(const std::string& text) {
    std::string result = "\"";
    for (const char character : text) {
        char code[8];
        if (character == '"' || character == '\\') {
            result += {'\\', character};
        } else if (static_cast<unsigned char>(character) < 0x20) {
            std::snprintf(code, sizeof code, "\\u%04x", character);
            result += code;
        } else {
            result += character;
        }
    }
    return result + '"';
}

std::string line_of(const Bundle& bundle, const std::string& path, const std::vector<float>& probabilities) {
    const std::vector<size_t> order = ranking(probabilities);
    std::ostringstream ids, scores, names;
    for (size_t i = 0; i < std::min(bundle.topk, order.size()); ++i) {
        const char* comma = i ? ", " : "";
        char score[16];
        std::snprintf(score, sizeof score, "%.5f", double(probabilities[order[i]]));
        ids << comma << order[i];
        scores << comma << score;
        if (order[i] < bundle.labels.size()) names << comma << quoted(bundle.labels[order[i]]);
    }
    return "{\"class_ids\": [" + ids.str() + "], \"scores\": [" + scores.str() + "], \"file_name\": " + quoted(path) +
           ", \"label_names\": [" + names.str() + "]}";
}

int classify(Classifier& classifier, const std::vector<std::string>& paths) {
    int code = 0;
    for (const std::string& path : paths) {
        try {
            const std::vector<float> probabilities = classifier(path);
            std::cout << line_of(classifier.bundle, path, probabilities) << std::endl;
        } catch (const Ort::Exception&) {
            throw;
        } catch (const std::exception& error) {
            std::cout << "{\"file_name\": " << quoted(path) << ", \"error\": " << quoted(error.what()) << "}" << std::endl;
            code = kData;
        }
    }
    return code;
}

std::string percent(size_t count, size_t number) {
    char text[16];
    std::snprintf(text, sizeof text, "%.2f%%", 100.0 * double(count) / double(number));
    return text;
}

int evaluate(Classifier& classifier, const Arguments& arguments) {
    std::ifstream list(arguments.list);
    std::string line;
    size_t number = 0, counts[2] = {};
    while (std::getline(list, line)) {
        if (!number && line.rfind("\xef\xbb\xbf", 0) == 0) line.erase(0, 3);  // a byte order mark
        const size_t last = line.find_last_not_of(" \t\r");
        if (last == std::string::npos) continue;
        line.resize(last + 1);
        const size_t space = line.find_last_of(" \t");
        char* end = nullptr;
        const size_t label = space == std::string::npos ? 0 : std::strtoul(line.c_str() + space, &end, 10);
        if (!end || *end) {
            std::cerr << arguments.list << ": '" << line << "' is not a path and a label" << std::endl;
            return kData;
        }
        const std::string name = line.substr(0, line.find_last_not_of(" \t", space) + 1);
        const std::string path = (arguments.root.empty() ? "" : arguments.root + "/") + name;
        std::vector<size_t> order;
        try {
            order = ranking(classifier(path));
        } catch (const Ort::Exception&) {
            throw;
        } catch (const std::exception& error) {
            std::cerr << path << ": " << error.what() << std::endl;
            return kData;
        }
        const size_t rank = size_t(std::find(order.begin(), order.end(), label) - order.begin());
        if (rank == order.size()) {
            std::cerr << arguments.list << ": there is no class " << label << std::endl;
            return kData;
        }
        for (size_t i = 0; i < 2; ++i) counts[i] += rank < kRanks[i];
        ++number;
    }
    if (!number) {
        std::cerr << arguments.list << ": cannot be read, or is empty" << std::endl;
        return kData;
    }
    std::ostringstream told, shares;
    for (size_t i = 0; i < 2; ++i) {
        const std::string share = percent(counts[i], number);
        told << "top" << kRanks[i] << "_correct=" << counts[i] << ", tot=" << number << ", acc=" << share << "\n";
        shares << (i ? ", " : "") << "'top_" << kRanks[i] << "_accuracy': " << share;
    }
    told << shares.str() << "\n";
    std::cout << told.str() << std::flush;
    std::ofstream file(arguments.accuracy);
    if (!(file << told.str() << std::flush)) {
        std::cerr << arguments.accuracy << ": cannot be written" << std::endl;
        return 5;
    }
    return 0;
}

bool parse(int count, char** given, Arguments& arguments) {
    const std::pair<std::string, std::string*> options[] = {
        {"--graph", &arguments.graph}, {"--list", &arguments.list}, {"--root", &arguments.root},
        {"--accuracy", &arguments.accuracy}};
    std::vector<std::string> places;
    for (int i = 1; i < count; ++i) {
        const std::string word = given[i];
        const auto* option = std::find_if(std::begin(options), std::end(options),
                                          [&](const auto& each) { return each.first == word; });
        const bool is_option = option != std::end(options) || word == "--threads";
        if (!is_option && word.rfind("--", 0) == 0) return false;
        if (is_option && ++i == count) return false;
        if (word == "--threads") {
            char* end = nullptr;
            const long threads = std::strtol(given[i], &end, 10);
            if (end == given[i] || *end || threads < 1 || threads > 1024) return false;
            arguments.threads = int(threads);
        } else if (is_option) {
            *option->second = given[i];
        } else {
            places.push_back(word);
        }
    }
    if (places.empty()) return false;
    arguments.bundle = places[0];
    arguments.images.assign(places.begin() + 1, places.end());
    return arguments.images.empty() == !arguments.list.empty() && arguments.list.empty() == arguments.accuracy.empty();
}

}  // namespace

int main(int count, char** given) {
    Arguments arguments;
    if (!parse(count, given, arguments)) {
        std::cerr << "usage: classify BUNDLE [--graph FILE] [--threads N] IMAGE...\n"
                     "       classify BUNDLE [--graph FILE] [--threads N] --list FILE [--root DIR] --accuracy FILE\n";
        return kUsage;
    }
    try {
        Classifier classifier(arguments);
        return arguments.list.empty() ? classify(classifier, arguments.images) : evaluate(classifier, arguments);
    } catch (const Refused& error) {
        std::cerr << arguments.bundle << ": " << error.what() << "\n";
    } catch (const Ort::Exception& error) {
        std::cerr << arguments.bundle << ": " << error.what() << "\n";
    }
    return kUsage;
}
