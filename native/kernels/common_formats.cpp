// The functions of the formats that most files are in.
#include "kernels/contents.h"

#include "kernels/format_entry.h"
#include "machine/contents.h"

namespace clarion {

namespace {

constexpr auto formats = format_entries(CommonFormats{});

}  // namespace

const Contents common_formats{formats, {}};

}  // namespace clarion
