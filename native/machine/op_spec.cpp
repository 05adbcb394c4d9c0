#include <stdexcept>

#include "machine/op.h"

namespace clarion {

namespace {

template <typename T>
T required(const std::map<std::string, T>& values, const std::string& name, const std::string& op) {
    const auto found = values.find(name);
    if (found == values.end())
        throw std::invalid_argument("operation '" + op + "' lacks the parameter '" + name + "'");
    return found->second;
}

template <typename T>
T optional(const std::map<std::string, T>& values, const std::string& name, T otherwise) {
    const auto found = values.find(name);
    return found == values.end() ? otherwise : found->second;
}

}  // namespace

int64_t OpSpec::integer(const std::string& name) const { return required(ints, name, op); }
int64_t OpSpec::integer(const std::string& name, int64_t otherwise) const {
    return optional(ints, name, otherwise);
}
double OpSpec::number(const std::string& name) const { return required(floats, name, op); }
double OpSpec::number(const std::string& name, double otherwise) const {
    return optional(floats, name, otherwise);
}

}  // namespace clarion
