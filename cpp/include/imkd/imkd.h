/* imkd.h: the detector for stacks in C and other languages. C99; nothing is thrown across it, nothing is printed, nothing exits.
 *
 *   imkd_detector* detector = imkd_detector_new();
 *   if (imkd_detector_load(detector, "m.imkd", "rig.json", NULL) != IMKD_OK) puts(imkd_detector_error(detector));
 *
 * A call gives IMKD_OK or the number of an error, as in imkd/error.hpp: 402 is E0402. The text is imkd_detector_error's.
 * Every struct begins with struct_size, which the caller sets to the sizeof that it was compiled with; all else 0 is the default. Fields are
 * only ever added at the end. So a library reads structs of older callers; of newer callers too, as long as what it does not know is 0; and
 * fills of imkd_result as much as the caller has. The version below rises with each addition; what is there neither moves nor changes.
 * One handle is used by one thread at a time: a second thread's call gives 506 and changes nothing but the error text. Different handles
 * share nothing. */
#ifndef IMKD_IMKD_H
#define IMKD_IMKD_H
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define IMKD_ABI_VERSION 2u
#define IMKD_OK 0
#define IMKD_UNEXPECTED (-1)  /* what no catalogue foresees: no memory; or a handle that is NULL */

#if defined(__GNUC__)
#define IMKD_API __attribute__((visibility("default")))
#else
#define IMKD_API
#endif

typedef struct imkd_detector imkd_detector;

typedef enum imkd_mode { IMKD_FULL, IMKD_PARTIAL, IMKD_CAMERA_ONLY, IMKD_RADAR_ONLY, IMKD_BLIND } imkd_mode;
typedef enum imkd_sensor_state {  /* as in imkd/result.hpp */
  IMKD_SENSOR_OK, IMKD_SENSOR_LATE, IMKD_SENSOR_STALE, IMKD_SENSOR_INVALID, IMKD_SENSOR_MISSING
} imkd_sensor_state;

typedef enum imkd_yuv { IMKD_BT601, IMKD_BT601_FULL, IMKD_BT709, IMKD_BT709_FULL } imkd_yuv;

typedef struct imkd_options {
  uint32_t struct_size;
  int32_t threads;           /* 0: one per core */
  const char* engine;        /* NULL: "auto", see DetectorOptions in imkd/detector.hpp */
  const char* device;        /* NULL: "auto"; "cpu" or "cuda" */
  float score_threshold;     /* 0: the spec's */
  uint32_t reserved;
  uint32_t debug;            /* since version 2; 1: also give the gate maps, in imkd_result.debug */
  uint32_t stage_times;      /* since version 2; 1: on the GPU also time each stage, at some cost */
} imkd_options;

typedef struct imkd_image {
  uint32_t struct_size;
  int32_t width, height;     /* px, as calibrated */
  uint32_t has_timestamp;    /* 0: taken at the frame's timestamp_ns */
  int64_t timestamp_ns;
  const uint8_t* data;       /* RGB, the first pixel; where chroma is set the plane of Y; NULL: the camera is absent */
  ptrdiff_t row_stride, pixel_stride, channel_stride;  /* bytes, may be negative; all 0: dense */
  const uint8_t* chroma;     /* NV12: U, V pairs at half the size; width and height are even */
  ptrdiff_t chroma_stride;   /* bytes from row to row; 0: dense */
  uint32_t yuv;              /* imkd_yuv */
  uint32_t reserved;
} imkd_image;

typedef struct imkd_sweep {
  uint32_t struct_size;
  int32_t radar;             /* index into the rig's radars */
  int32_t count;
  uint32_t has_timestamp;    /* 0: taken at the frame's timestamp_ns */
  int64_t timestamp_ns;
  const float* points;       /* (count, 5) x, y, z m in the radar frame, intensity dB, radial velocity m/s (receding positive) */
  const double* T_world_ego; /* (4, 4) row-major ego pose when the sweep was taken, or NULL */
} imkd_sweep;

typedef struct imkd_frames { /* one moment; the memory stays the caller's and is read during the call alone */
  uint32_t struct_size;
  uint32_t image_count;      /* the rig's number of cameras */
  int64_t timestamp_ns;      /* reference time */
  const imkd_image* images;  /* in the rig's order; all of one struct_size */
  const imkd_sweep* sweeps;  /* any number per radar, any order; all of one struct_size */
  uint32_t sweep_count;
  uint32_t reserved;
  const double* T_world_ego; /* (4, 4) row-major ego pose at timestamp_ns, or NULL */
  const double* twist;       /* vx, vy m/s and yaw rate rad/s in the ego frame, or NULL */
} imkd_frames;

typedef struct imkd_detection { /* in the ego frame */
  float x, y, z;                /* centre, m */
  float length, width, height;  /* m */
  float yaw;                    /* rad about +z from +x */
  float vx, vy;                 /* m/s */
  float score;                  /* 0..1 */
  int32_t label;
} imkd_detection;

typedef struct imkd_map {       /* one value per BEV cell */
  const char* name;
  int32_t rows, columns;
  const float* data;            /* (rows, columns) */
} imkd_map;

typedef struct imkd_result { /* the pointers are valid until the handle's next call */
  uint32_t struct_size;
  uint32_t detection_count;
  int64_t timestamp_ns;
  const void* detections;    /* imkd_detection, each detection_stride bytes after the last: see imkd_detection_at; best first */
  uint32_t detection_stride;
  int32_t mode;              /* imkd_mode */
  uint32_t camera_count, radar_count;
  const uint8_t* camera_states;  /* imkd_sensor_state, in the rig's order */
  const uint8_t* radar_states;
  int32_t radar_points, radar_points_invalid, radar_points_outside, radar_points_overflow;
  int32_t boxes_invalid, past_frames, ego_speed_estimated;
  float ego_speed, ego_speed_residual;  /* m/s */
  uint32_t stage_count;
  const float* timings_us;   /* by stage */
  float total_us;
  int32_t segmentation_rows, segmentation_columns;
  uint32_t reserved;
  const float* segmentation; /* (rows, columns) probability of a vehicle, or NULL */
  const void* debug;         /* since version 2: imkd_map, each debug_stride bytes after the last: see imkd_map_at; the gates, 0..1 */
  uint32_t debug_count, debug_stride;
} imkd_result;

static inline const imkd_detection* imkd_detection_at(const imkd_result* result, uint32_t index) {
  return (const imkd_detection*)((const char*)result->detections + (size_t)index * result->detection_stride);
}

static inline const imkd_map* imkd_map_at(const imkd_result* result, uint32_t index) {
  return (const imkd_map*)((const char*)result->debug + (size_t)index * result->debug_stride);
}

typedef enum imkd_names { IMKD_CLASSES, IMKD_CAMERAS, IMKD_RADARS, IMKD_STAGES, IMKD_MODES, IMKD_SENSOR_STATES } imkd_names;

IMKD_API uint32_t imkd_abi_version(void);  /* of the library */
/* Which libonnxruntime.so to open, before the first load. NULL: the environment's IMKD_ORT_LIBRARY, else the loader's. */
IMKD_API int imkd_set_onnxruntime(const char* path);

IMKD_API imkd_detector* imkd_detector_new(void);           /* an empty handle; NULL where there is no memory */
IMKD_API void imkd_detector_destroy(imkd_detector* detector);  /* NULL is fine; no call may be under way */
/* bundle: a folder NAME.imkd; rig: the path of a JSON file, or the JSON itself where it begins with "{"; options may be NULL. A handle that is
 * loaded already is loaded anew; a failure leaves it as it was. */
IMKD_API int imkd_detector_load(imkd_detector* detector, const char* bundle, const char* rig, const imkd_options* options);
IMKD_API int imkd_detector_set_rig(imkd_detector* detector, const char* rig);
IMKD_API int imkd_detector_infer(imkd_detector* detector, const imkd_frames* frames, imkd_result* result);
IMKD_API int imkd_detector_reset(imkd_detector* detector);  /* forgets past frames */
/* The text of the handle's last failure, "error[E0402] what / where / how to fix"; "" where there was none. Valid until this thread's next call
 * of this function. */
IMKD_API const char* imkd_detector_error(const imkd_detector* detector);
/* The name of a class, camera, radar, stage, mode or state; NULL beyond the last. Valid until the handle is loaded or given another rig. */
IMKD_API const char* imkd_detector_name(const imkd_detector* detector, imkd_names names, uint32_t index);

#ifdef __cplusplus
}
#endif
#endif
