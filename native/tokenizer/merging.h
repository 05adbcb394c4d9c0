// Byte-pair encoding by a list of merges (Sennrich et al., 2016).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace clarion {

// Numbers texts from 0 on, in the order in which they first come. One table, because a node of memory for each of a
// vocabulary's texts, as std::unordered_map has it, takes longer than all the rest.
class Numbering {
  public:
    static constexpr uint32_t none = UINT32_MAX;

    explicit Numbering(size_t most);

    uint32_t add(std::string_view text);         // at most as many different ones as said before
    uint32_t find(std::string_view text) const;  // `none` if it has not come
    size_t size() const { return texts_.size(); }

  private:
    std::vector<uint32_t> slots_;
    std::vector<std::string_view> texts_;

    size_t slot(std::string_view text) const;  // where its number is, or belongs
};

class Merging {
  public:
    // `merges` are two symbols with a space between, of which the first ranks first; `tokens` are different texts.
    // What they view must outlive this. Throws NoMerge, and std::length_error for 2^29 strings or more.
    Merging(const std::vector<std::string_view>& merges, const std::vector<std::string_view>& tokens);

    struct NoMerge {
        size_t index;  // of the merge that has no space, or nothing before or after it
    };

    // The tokens of a word in UTF-8: its characters, of which the neighbours that rank first, the leftmost of equal ones,
    // become one until none is left. A symbol that is no token gives -1 - byte for each of its bytes.
    std::vector<int32_t> encode(std::string_view word) const;

  private:
    struct Rule {
        uint32_t left, right, joined;  // numbers of symbols
    };
    Numbering symbols_;  // the tokens first
    uint32_t n_tokens_;
    std::vector<Rule> rules_;      // by rank
    std::vector<uint32_t> slots_;  // ranks, by their pairs
    std::string joined_;           // the texts of joined symbols that are no tokens

    size_t slot(uint32_t left, uint32_t right) const;  // where the pair's rank is, or belongs
};

}  // namespace clarion
