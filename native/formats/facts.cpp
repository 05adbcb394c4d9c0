#include "formats/facts.h"

#include <array>

#include "formats/table.h"

namespace clarion {

namespace {

template <typename... Common, typename... Other>
constexpr std::array<FormatFacts, sizeof...(Common) + sizeof...(Other)> facts(FormatList<Common...>,
                                                                              FormatList<Other...>) {
    return {FormatFacts{Common::id, Common::name, Common::block, Common::bytes, ""}...,
            FormatFacts{Other::id, Other::name, Other::block, Other::bytes, "formats"}...};
}

constexpr auto all = facts(CommonFormats{}, OtherFormats{});

}  // namespace

std::span<const FormatFacts> format_facts() { return all; }

}  // namespace clarion
