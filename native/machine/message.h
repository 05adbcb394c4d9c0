// Messages of errors, put together out of line: concatenating strings in place would be most of the machine's
// code.
#pragma once

#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

namespace clarion {

struct MessagePart {
    std::string_view text;
    int64_t number = 0;

    MessagePart(const char* s) : text(s) {}
    MessagePart(const std::string& s) : text(s) {}
    template <std::integral T>
    MessagePart(T n) : number(static_cast<int64_t>(n)) {}
    bool is_number() const { return text.data() == nullptr; }
};

using Message = std::initializer_list<MessagePart>;

std::string text(Message message);
[[noreturn]] void refuse(Message message);  // throws std::invalid_argument

}  // namespace clarion
