/* imkd.h: the detector, and live input for it, for stacks in C and other languages. C99; nothing is thrown across it,
 * printed or ended.
 *
 *   imkd_detector* detector = imkd_detector_new();
 *   if (imkd_detector_load(detector, "m.imkd", "rig.json", NULL) != IMKD_OK) puts(imkd_detector_error(detector));
 *
 * A call gives IMKD_OK or the number of an error, as in imkd/error.hpp: 402 is E0402. The text is
 * imkd_detector_error's, and so for each handle. Every struct begins with struct_size, which the caller sets to the
 * sizeof that it was compiled with; all else 0 is the default. Fields are only ever added at the end. So a library
 * reads structs of older callers; of newer callers too, as long as what it does not know is 0; and fills of imkd_result
 * as much as the caller has. The version below rises with each addition; what is there neither moves nor changes. One
 * detector is used by one thread at a time: a second thread's call gives 506 and changes nothing but the error text. Of
 * the live handles only load, start, pop and check take turns in that way; all else may be called from any thread at
 * once. Different handles share nothing. */
#ifndef IMKD_IMKD_H
#define IMKD_IMKD_H
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define IMKD_ABI_VERSION 3u
#define IMKD_OK 0
#define IMKD_UNEXPECTED (-1) /* what no catalogue foresees: no memory; or a handle that is NULL */

#if defined(__GNUC__)
#define IMKD_API __attribute__((visibility("default")))
#else
#define IMKD_API
#endif

typedef struct imkd_detector imkd_detector;
typedef struct imkd_synchronizer imkd_synchronizer; /* the live handles: since version 3 */
typedef struct imkd_monitor imkd_monitor;
typedef struct imkd_watchdog imkd_watchdog;

typedef enum imkd_mode { IMKD_FULL, IMKD_PARTIAL, IMKD_CAMERA_ONLY, IMKD_RADAR_ONLY, IMKD_BLIND } imkd_mode;
typedef enum imkd_sensor_state { /* as in imkd/result.hpp */
                                 IMKD_SENSOR_OK,
                                 IMKD_SENSOR_LATE,
                                 IMKD_SENSOR_STALE,
                                 IMKD_SENSOR_INVALID,
                                 IMKD_SENSOR_MISSING,
                                 IMKD_SENSOR_FROZEN,
                                 IMKD_SENSOR_LOST /* since version 3; of a monitor, a detector does not tell them */
} imkd_sensor_state;
typedef enum imkd_pushed { /* what became of an item, as in imkd/synchronizer.hpp; only a kept one changes anything */
                           IMKD_PUSHED_KEPT,
                           IMKD_PUSHED_LATE,
                           IMKD_PUSHED_DUPLICATE,
                           IMKD_PUSHED_FUTURE,
                           IMKD_PUSHED_INVALID
} imkd_pushed;

typedef enum imkd_yuv { IMKD_BT601, IMKD_BT601_FULL, IMKD_BT709, IMKD_BT709_FULL } imkd_yuv;

typedef struct imkd_options {
  uint32_t struct_size;
  int32_t threads;       /* 0: one per core */
  const char* engine;    /* NULL: "auto", see DetectorOptions in imkd/detector.hpp */
  const char* device;    /* NULL: "auto"; "cpu" or "cuda" */
  float score_threshold; /* 0: the spec's */
  uint32_t reserved;
  uint32_t debug;       /* since version 2; 1: also give the gate maps, in imkd_result.debug */
  uint32_t stage_times; /* since version 2; 1: on the GPU also time each stage, at some cost */
} imkd_options;

typedef struct imkd_image {
  uint32_t struct_size;
  int32_t width, height;  /* px, as calibrated */
  uint32_t has_timestamp; /* 0: taken at the frame's timestamp_ns */
  int64_t timestamp_ns;
  const uint8_t* data; /* RGB, the first pixel; where chroma is set the plane of Y; NULL: the camera is absent */
  /* bytes, may be negative; 0: dense rows; 3; 1, but where pixel_stride is 1 or -1 one grey byte for all channels */
  ptrdiff_t row_stride, pixel_stride, channel_stride;
  const uint8_t* chroma;   /* NV12: U, V pairs at half the size; width and height are even */
  ptrdiff_t chroma_stride; /* bytes from row to row; 0: dense */
  uint32_t yuv;            /* imkd_yuv */
  uint32_t reserved;
} imkd_image;

typedef struct imkd_sweep {
  uint32_t struct_size;
  int32_t radar; /* index into the rig's radars */
  int32_t count;
  uint32_t has_timestamp; /* 0: taken at the frame's timestamp_ns */
  int64_t timestamp_ns;
  /* (count, 5) x, y, z m in the radar frame, intensity dB, radial velocity m/s (receding positive). A point with a
   * number that is not finite, or with an intensity or velocity beyond -300..300, is invalid and dropped. */
  const float* points;
  const double* T_world_ego; /* (4, 4) row-major ego pose when the sweep was taken, or NULL */
} imkd_sweep;

typedef struct imkd_frames { /* one moment; the memory stays the caller's and is read during the call alone */
  uint32_t struct_size;
  uint32_t image_count;     /* the rig's number of cameras */
  int64_t timestamp_ns;     /* reference time */
  const imkd_image* images; /* in the rig's order; all of one struct_size */
  const imkd_sweep* sweeps; /* any number per radar, any order; all of one struct_size */
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

typedef struct imkd_map { /* one value per BEV cell */
  const char* name;
  int32_t rows, columns;
  const float* data; /* (rows, columns) */
} imkd_map;

typedef struct imkd_result { /* the pointers are valid until the handle's next call */
  uint32_t struct_size;
  uint32_t detection_count;
  int64_t timestamp_ns;
  const void*
      detections; /* imkd_detection, each detection_stride bytes after the last: see imkd_detection_at; best first */
  uint32_t detection_stride;
  int32_t mode; /* imkd_mode */
  uint32_t camera_count, radar_count;
  const uint8_t* camera_states; /* imkd_sensor_state, in the rig's order */
  const uint8_t* radar_states;
  int32_t radar_points, radar_points_invalid, radar_points_outside, radar_points_overflow;
  int32_t boxes_invalid, past_frames, ego_speed_estimated;
  float ego_speed, ego_speed_residual; /* m/s */
  uint32_t stage_count;
  const float* timings_us; /* by stage */
  float total_us;
  int32_t segmentation_rows, segmentation_columns;
  uint32_t reserved;
  const float* segmentation; /* (rows, columns) probability of a vehicle, or NULL */
  const void*
      debug; /* since version 2: imkd_map, each debug_stride bytes after the last: see imkd_map_at; the gates, 0..1 */
  uint32_t debug_count, debug_stride;
} imkd_result;

static inline const imkd_detection* imkd_detection_at(const imkd_result* result, uint32_t index) {
  return (const imkd_detection*)((const char*)result->detections + (size_t)index * result->detection_stride);
}

static inline const imkd_map* imkd_map_at(const imkd_result* result, uint32_t index) {
  return (const imkd_map*)((const char*)result->debug + (size_t)index * result->debug_stride);
}

typedef enum imkd_names {
  IMKD_CLASSES,
  IMKD_CAMERAS,
  IMKD_RADARS,
  IMKD_STAGES,
  IMKD_MODES,
  IMKD_SENSOR_STATES,
  IMKD_PUSHED
} imkd_names;

IMKD_API uint32_t imkd_abi_version(void); /* of the library */
/* Which libonnxruntime.so to open, before the first load. NULL: the environment's IMKD_ORT_LIBRARY, else the loader's.
 */
IMKD_API int imkd_set_onnxruntime(const char* path);

IMKD_API imkd_detector* imkd_detector_new(void);              /* an empty handle; NULL where there is no memory */
IMKD_API void imkd_detector_destroy(imkd_detector* detector); /* NULL is fine; no call may be under way */
/* bundle: a folder NAME.imkd; rig: the path of a JSON file, or the JSON itself where it begins with "{"; options may be
 * NULL. A handle that is loaded already is loaded anew; a failure leaves it as it was. */
IMKD_API int imkd_detector_load(imkd_detector* detector, const char* bundle, const char* rig,
                                const imkd_options* options);
IMKD_API int imkd_detector_set_rig(imkd_detector* detector, const char* rig);
IMKD_API int imkd_detector_infer(imkd_detector* detector, const imkd_frames* frames, imkd_result* result);
IMKD_API int imkd_detector_reset(imkd_detector* detector); /* forgets past frames */
/* The text of the handle's last failure, "error[E0402] what / where / how to fix"; "" where there was none. Valid until
 * this thread's next call of this function. */
IMKD_API const char* imkd_detector_error(const imkd_detector* detector);
/* The name of a class, camera, radar, stage, mode, state or imkd_pushed; NULL beyond the last. Valid until the handle
 * is loaded or given another rig. The last four are the library's: they need no handle. */
IMKD_API const char* imkd_detector_name(const imkd_detector* detector, imkd_names names, uint32_t index);

/* ---- live input, since version 3. What the words mean stands in imkd/synchronizer.hpp and imkd/monitor.hpp. ----
 * Every time is an argument, ns; now_ns is on the clock of the timestamps. An image or sweep needs its own time:
 * has_timestamp is 1. model: a folder NAME.imkd, or a spec's JSON where it begins with "{". rig, load, reset and error:
 * as of the detector.
 *
 *   imkd_synchronizer_push_camera(synchronizer, 0, &image, now_ns, give_back, buffer, NULL);   in a driver's thread
 *   while (imkd_synchronizer_pop(synchronizer, now_ns, &frames, NULL) == IMKD_OK && frames)    in the loop
 *     if (imkd_detector_infer(detector, frames, &result) == IMKD_OK) imkd_watchdog_beat(watchdog); */

typedef struct imkd_synchronizer_options {
  uint32_t struct_size;
  int32_t max_images; /* 0: 8, kept per camera */
  int32_t max_sweeps; /* 0: 32, kept per radar */
  uint32_t reserved;
  const char*
      reference;    /* the sensor whose items make the frames; NULL: the rig's first camera, else its first radar */
  double tolerance; /* s; 0: 0.04 */
  double timeout, max_delay, max_future, lost_after; /* s; 0: 0.1, 1, 0.1, 1; for none at all 1e-9 */
} imkd_synchronizer_options;

typedef struct imkd_counts {
  uint32_t struct_size;
  uint32_t reserved;
  int64_t kept, late, duplicate, future, invalid; /* items */
  int64_t complete, incomplete, dropped, expired; /* frames */
  int64_t restarts;                               /* now went back */
} imkd_counts;

/* Called once with its user, on whatever thread, when memory that was lent is read no more. It must not call the
 * handle. */
typedef void (*imkd_release)(void* user);

IMKD_API imkd_synchronizer* imkd_synchronizer_new(void);
IMKD_API void imkd_synchronizer_destroy(imkd_synchronizer* synchronizer);
IMKD_API int imkd_synchronizer_load(imkd_synchronizer* synchronizer, const char* model, const char* rig,
                                    const imkd_synchronizer_options* options);
/* release NULL: pixels and points are copied. Else they are lent until release is called, also where the call fails or
 * keeps nothing. pushed: an imkd_pushed, or NULL. */
IMKD_API int imkd_synchronizer_push_camera(imkd_synchronizer* synchronizer, int32_t camera, const imkd_image* image,
                                           int64_t now_ns, imkd_release release, void* user, int32_t* pushed);
IMKD_API int imkd_synchronizer_push_radar(imkd_synchronizer* synchronizer, const imkd_sweep* sweep, int64_t now_ns,
                                          imkd_release release, void* user, int32_t* pushed);
/* T_world_ego (4, 4) row-major; twist vx, vy m/s and yaw rate rad/s in the ego frame; either may be NULL. */
IMKD_API int imkd_synchronizer_push_ego(imkd_synchronizer* synchronizer, const double* T_world_ego, const double* twist,
                                        int64_t timestamp_ns, int64_t now_ns, int32_t* pushed);
/* The oldest frame that is ready, for imkd_detector_infer; NULL where there is none. Valid until the handle's next pop,
 * or its end; images and sweeps are struct_size apart. complete: 1 where every sensor and the ego motion was there; may
 * be NULL. */
IMKD_API int imkd_synchronizer_pop(imkd_synchronizer* synchronizer, int64_t now_ns, const imkd_frames** frames,
                                   uint32_t* complete);
IMKD_API int imkd_synchronizer_reset(imkd_synchronizer* synchronizer); /* forgets everything but the counts */
IMKD_API int imkd_synchronizer_counts(const imkd_synchronizer* synchronizer, imkd_counts* counts);
IMKD_API const char* imkd_synchronizer_error(const imkd_synchronizer* synchronizer);

typedef struct imkd_monitor_options {
  uint32_t struct_size;
  int32_t frozen_after; /* 0: 3 items in a row with the same contents */
  double lost_after;    /* s of silence; 0: 2 */
} imkd_monitor_options;

typedef struct imkd_health { /* the pointers are valid until the handle's next check, or its end */
  uint32_t struct_size;
  int32_t mode; /* imkd_mode */
  uint32_t camera_count, radar_count;
  const uint8_t* camera_states; /* imkd_sensor_state, in the rig's order */
  const uint8_t* radar_states;
} imkd_health;

IMKD_API imkd_monitor* imkd_monitor_new(void);
IMKD_API void imkd_monitor_destroy(imkd_monitor* monitor);
IMKD_API int imkd_monitor_load(imkd_monitor* monitor, const char* model, const char* rig,
                               const imkd_monitor_options* options);
/* The memory is read during the call alone. data NULL, or another size: the camera is invalid. */
IMKD_API int imkd_monitor_observe_camera(imkd_monitor* monitor, int32_t camera, const imkd_image* image,
                                         int64_t now_ns);
IMKD_API int imkd_monitor_observe_radar(imkd_monitor* monitor, const imkd_sweep* sweep, int64_t now_ns);
IMKD_API int imkd_monitor_check(imkd_monitor* monitor, int64_t now_ns, imkd_health* health);
IMKD_API int imkd_monitor_reset(imkd_monitor* monitor); /* forgets everything */
IMKD_API const char* imkd_monitor_error(const imkd_monitor* monitor);

typedef struct imkd_watchdog_options {
  uint32_t struct_size;
  uint32_t without_timer; /* 1: no thread; imkd_watchdog_poll does its work */
  double deadline;        /* s from one beat to the next */
  void (*missed)(
      double seconds,
      void* user); /* s since the last beat; once per miss, on the timer's thread; may destroy the watchdog; or NULL */
  int64_t (*clock)(void* user); /* ns, never back; NULL: the machine's steady clock */
  void* user;                   /* of both */
} imkd_watchdog_options;

IMKD_API imkd_watchdog* imkd_watchdog_new(void);
IMKD_API void imkd_watchdog_destroy(imkd_watchdog* watchdog); /* waits for a missed() under way, unless called by it */
IMKD_API int imkd_watchdog_start(imkd_watchdog* watchdog,
                                 const imkd_watchdog_options* options); /* anew where it runs; the first beat */
IMKD_API int imkd_watchdog_beat(imkd_watchdog* watchdog);
IMKD_API int imkd_watchdog_poll(imkd_watchdog* watchdog);
/* overdue: 1 after a miss until the next beat; misses: since the start. Each may be NULL. */
IMKD_API int imkd_watchdog_state(const imkd_watchdog* watchdog, uint32_t* overdue, int64_t* misses);
IMKD_API const char* imkd_watchdog_error(const imkd_watchdog* watchdog);

#ifdef __cplusplus
}
#endif
#endif
