#include "formats/codebooks.h"

namespace clarion {

const Codebooks codebooks;

}  // namespace clarion
