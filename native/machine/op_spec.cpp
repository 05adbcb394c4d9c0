#include "machine/op.h"

namespace clarion {

namespace {

template <typename T>
const T* find(const std::map<std::string, T>& values, const std::string& name, std::set<std::string>& read) {
    read.insert(name);
    const auto found = values.find(name);
    return found == values.end() ? nullptr : &found->second;
}

}  // namespace

void OpSpec::fail(Message what) const { refuse({"operation '", op, "': ", text(what)}); }

void OpSpec::expect(Count n_inputs, Count n_outputs, Count n_weights) const {
    const auto check = [this](const auto& given, Count n, const char* what) {
        size_t present = given.size();
        while (present > n.least && given[present - 1] == nullptr) --present;
        bool complete = present >= n.least && present <= n.most;
        for (size_t i = 0; complete && i < n.least; ++i) complete = given[i] != nullptr;
        if (!complete)
            fail({"found ", present, " ", what, ", some perhaps absent; expected ", n.least, " to ", n.most});
    };
    check(inputs, n_inputs, "inputs");
    check(outputs, n_outputs, "outputs");
    check(weights, n_weights, "weights");
}

const Buffer& OpSpec::input(size_t i) const {
    if (i >= inputs.size() || inputs[i] == nullptr) fail({"lacks input ", i});
    return *inputs[i];
}

const Buffer& OpSpec::output(size_t i) const {
    if (i >= outputs.size() || outputs[i] == nullptr) fail({"lacks output ", i});
    return *outputs[i];
}

const Weight* OpSpec::weight(size_t i) const { return i < weights.size() ? weights[i] : nullptr; }

int64_t OpSpec::integer(const std::string& name) const {
    const int64_t* value = find(ints, name, read_);
    if (!value) fail({"lacks the integer '", name, "'"});
    return *value;
}

bool OpSpec::flag(const std::string& name) const {
    const int64_t value = integer(name);
    if (value != 0 && value != 1) fail({name, ": found ", value, ", expected 0 or 1"});
    return value == 1;
}

double OpSpec::number(const std::string& name) const {
    const double* value = find(floats, name, read_);
    if (!value) fail({"lacks the number '", name, "'"});
    return *value;
}

const std::vector<double>& OpSpec::array(const std::string& name) const {
    const std::vector<double>* value = find(arrays, name, read_);
    if (!value) fail({"lacks the array '", name, "'"});
    return *value;
}

void OpSpec::refuse_unread() const {
    const auto check = [this](const auto& values) {
        for (const auto& [name, value] : values)
            if (!read_.contains(name)) fail({"does not know the parameter '", name, "'"});
    };
    check(ints);
    check(floats);
    check(arrays);
}

}  // namespace clarion
