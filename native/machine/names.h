// The words that a specification has for kinds and rows of buffers.
#pragma once

#include <string>

#include "machine/op.h"

namespace clarion {

const char* name(Kind kind);
const char* name(Rows rows);

// Throw std::invalid_argument for another word; `where` names its place in the specification.
Kind kind_named(const std::string& word, Message where);
Rows rows_named(const std::string& word, Message where);

}  // namespace clarion
