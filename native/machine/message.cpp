#include "machine/message.h"

#include <stdexcept>

namespace clarion {

std::string text(Message message) {
    std::string result;
    for (const MessagePart& part : message) {
        if (part.is_number())
            result += std::to_string(part.number);
        else
            result += part.text;
    }
    return result;
}

void refuse(Message message) { throw std::invalid_argument(text(message)); }

}  // namespace clarion
