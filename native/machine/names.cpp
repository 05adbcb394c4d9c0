#include "machine/names.h"

#include <array>

namespace clarion {

namespace {

// In the order of the enumerations.
constexpr std::array kinds{"f32", "fast", "high", "bf16", "i32"};
constexpr std::array rows{"tokens", "outputs", "batch"};

template <size_t n>
size_t find(const std::array<const char*, n>& words, const std::string& word, Message where) {
    for (size_t i = 0; i < n; ++i)
        if (word == words[i]) return i;
    std::string known;
    for (const char* other : words) known += (known.empty() ? "" : ", ") + std::string(other);
    refuse({text(where), ": found '", word, "', expected one of ", known});
}

}  // namespace

const char* name(Kind kind) { return kinds[static_cast<size_t>(kind)]; }
const char* name(Rows of) { return rows[static_cast<size_t>(of)]; }

Kind kind_named(const std::string& word, Message where) {
    return static_cast<Kind>(find(kinds, word, where));
}
Rows rows_named(const std::string& word, Message where) { return static_cast<Rows>(find(rows, word, where)); }

}  // namespace clarion
