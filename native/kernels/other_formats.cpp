// The functions of all formats but the common ones.
#include "kernels/contents.h"

#include "kernels/format_entry.h"
#include "machine/contents.h"

namespace clarion {

namespace {

constexpr auto formats = format_entries(OtherFormats{});

}  // namespace

const Contents other_formats{formats, {}};

}  // namespace clarion
