// temperature: what the query of each token is times, by the token's position.
//
// A logarithm for each token, in double, as the angles of a rotation: of every other operation's work it is nothing.
#include <cmath>

#include "kernels/rows.h"
#include "operations.h"

namespace clarion {

namespace {

class Temperature final : public RowOp {
  public:
    Temperature(const Buffer& s, double slope, int64_t length)
        : RowOp(s, s.width), s_(s), slope_(slope), length_(length) {}

  private:
    void run_row(const Batch& batch, int64_t row, const Scratch&) override {
        const int64_t passed = batch.positions[row] / length_;
        *f32_row(s_, row) = static_cast<float>(1.0 + slope_ * std::log1p(static_cast<double>(passed)));
    }

    const Buffer& s_;
    double slope_;
    int64_t length_;
};

}  // namespace

std::unique_ptr<Op> make_temperature(const OpSpec& spec) {
    spec.expect(0, 1, 0);
    const Buffer& s = spec.output(0);
    const TemperatureParameters p(spec);
    expect_kind(spec, s, Kind::f32);
    expect_rows(spec, s, Rows::tokens);
    expect_width(spec, s, 1);
    if (p.length < 1) spec.fail({"length: found ", p.length, ", expected at least 1"});
    return std::make_unique<Temperature>(s, p.slope, p.length);
}

}  // namespace clarion
