#include "live_item.hpp"

#include <cstring>
#include <string>
#include <vector>

#include "imkd/error.hpp"
#include "sensor_memory.hpp"

namespace imkd {

static std::shared_ptr<const void> copy_rgb(ImageView& image) {
  auto pixels = std::make_shared<std::vector<std::uint8_t>>(std::size_t(image.width) * image.height * 3);
  std::uint8_t* out = pixels->data();
  for (int row = 0; row < image.height; ++row) {
    const std::uint8_t* in = image.data + row * image.row_stride;
    if (image.pixel_stride == 3 && image.channel_stride == 1) {
      std::memcpy(out, in, std::size_t(image.width) * 3);
      out += std::size_t(image.width) * 3;
      continue;
    }
    for (int column = 0; column < image.width; ++column)
      for (int channel = 0; channel < 3; ++channel)
        *out++ = in[column * image.pixel_stride + channel * image.channel_stride];
  }
  image = {pixels->data(), image.width, image.height, std::ptrdiff_t(image.width) * 3, 3, 1};
  return pixels;
}

static std::shared_ptr<const void> copy_nv12(ImageView& image) {
  const std::size_t width = std::size_t(image.width), height = std::size_t(image.height);
  auto planes = std::make_shared<std::vector<std::uint8_t>>(width * height * 3 / 2);
  std::uint8_t* out = planes->data();
  for (int row = 0; row < image.height; ++row, out += width)
    std::memcpy(out, image.data + row * image.row_stride, width);
  for (int row = 0; row < image.height / 2; ++row, out += width)
    std::memcpy(out, image.chroma + row * image.chroma_stride, width);
  image.data = planes->data();
  image.chroma = planes->data() + width * height;
  image.row_stride = image.chroma_stride = std::ptrdiff_t(width);
  return planes;
}

std::shared_ptr<const void> copy_image(ImageView& image) { return image.chroma ? copy_nv12(image) : copy_rgb(image); }

std::shared_ptr<const void> copy_points(RadarSweep& sweep) {
  auto points = std::make_shared<std::vector<float>>(sweep.points, sweep.points + std::size_t(sweep.count) * 5);
  sweep.points = points->data();
  return points;
}

// "an index of 7, but the rig has 2 cameras"
static Error unknown_sensor(const std::string& kind, int index, std::size_t count) {
  return Error(Code::frame_unknown_sensor,
               "an index of " + std::to_string(index) + ", but the rig has " + std::to_string(count) + " " + kind + "s",
               kind, "use an index into the rig, counted from 0");
}

static std::string size_text(int width, int height) { return std::to_string(width) + "x" + std::to_string(height); }

const CameraCalibration& checked_camera(const SensorRig& rig, int camera) {
  if (camera < 0 || static_cast<std::size_t>(camera) >= rig.cameras.size())
    throw unknown_sensor("camera", camera, rig.cameras.size());
  return rig.cameras[static_cast<std::size_t>(camera)];
}

void check_image(const SensorRig& rig, int camera, const ImageView& image) {
  const CameraCalibration& calibration = checked_camera(rig, camera);
  const std::string where = "camera " + calibration.name;
  if (!image.data)
    throw Error(Code::frame_bad_shape, "the image has no data", where, "push nothing where there is no image");
  if (image.width != calibration.width || image.height != calibration.height)
    throw Error(Code::frame_bad_shape,
                "the image has " + size_text(image.width, image.height) + " pixels, the calibration " +
                    size_text(calibration.width, calibration.height),
                where, "push the raw image, at the size that it was calibrated at");
  check_layout(image, where);
}

void check_sweep(const SensorRig& rig, const RadarSweep& sweep) {
  if (sweep.radar < 0 || static_cast<std::size_t>(sweep.radar) >= rig.radars.size())
    throw unknown_sensor("radar", sweep.radar, rig.radars.size());
  if (sweep.count < 0 || (sweep.count > 0 && !sweep.points))
    throw Error(
        Code::frame_bad_shape,
        "the sweep has a count of " + std::to_string(sweep.count) + (sweep.count < 0 ? ", below 0" : " and no points"),
        "radar " + rig.radars[static_cast<std::size_t>(sweep.radar)].name, "give (count, 5) float32, or a count of 0");
}

}  // namespace imkd
