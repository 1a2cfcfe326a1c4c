/* imkd.h: the detector and its live input, for software in C and other languages. C99. The library throws no exception
 * to its caller, prints nothing and does not end the process, with one exception: where memory runs out inside the
 * parser of JSON, in a load or set_rig. Every other call returns IMKD_UNEXPECTED then.
 *
 *   imkd_detector* detector = imkd_detector_new();
 *   if (imkd_detector_load(detector, "m.imkd", "rig.json", NULL) != IMKD_OK) puts(imkd_detector_error(detector));
 *
 * Errors: a call returns IMKD_OK or the number of an error in imkd/error.hpp: 402 is E0402. imkd_detector_error returns
 * the text, and so do its counterparts for the other handles.
 *
 * Structs: each begins with struct_size, which the caller sets to the sizeof that it was compiled with. 0 in every
 * other field is the default. New fields are appended at the end only. The library therefore reads structs of older
 * callers, and of newer callers as long as the fields that it does not know are 0. It fills imkd_result as far as the
 * caller's struct_size. IMKD_ABI_VERSION increases with each addition; existing fields are neither moved nor changed.
 *
 * Threads: one thread at a time uses a detector. A second thread's call returns 506 and changes nothing but the error
 * text. Of the live handles only load, start, pop and check exclude each other like this; any thread may call the other
 * functions at any time. Different handles share nothing. */
#ifndef IMKD_IMKD_H
#define IMKD_IMKD_H
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define IMKD_ABI_VERSION 7u
#define IMKD_OK 0
#define IMKD_UNEXPECTED (-1) /* no number in imkd/error.hpp: out of memory, or the handle is NULL */

#if defined(__GNUC__)
#define IMKD_API __attribute__((visibility("default")))
#else
#define IMKD_API
#endif

typedef struct imkd_detector imkd_detector;
/* The live handles, since version 3. */
typedef struct imkd_synchronizer imkd_synchronizer;
typedef struct imkd_monitor imkd_monitor;
typedef struct imkd_watchdog imkd_watchdog;
typedef struct imkd_tracker imkd_tracker; /* since version 6 */

typedef enum imkd_mode { IMKD_FULL, IMKD_PARTIAL, IMKD_CAMERA_ONLY, IMKD_RADAR_ONLY, IMKD_BLIND } imkd_mode;

/* As in imkd/result.hpp. LOST, since version 3, comes from a monitor only; FROZEN from a detector too, since version 7;
 * UNUSABLE since version 4. */
typedef enum imkd_sensor_state {
  IMKD_SENSOR_OK,
  IMKD_SENSOR_LATE,
  IMKD_SENSOR_STALE,
  IMKD_SENSOR_INVALID,
  IMKD_SENSOR_MISSING,
  IMKD_SENSOR_FROZEN,
  IMKD_SENSOR_LOST,
  IMKD_SENSOR_UNUSABLE
} imkd_sensor_state;

/* Since version 5: where the motion within a frame comes from, as in imkd/result.hpp. */
typedef enum imkd_motion_source {
  IMKD_MOTION_POSES,
  IMKD_MOTION_TWIST,
  IMKD_MOTION_ESTIMATED,
  IMKD_MOTION_NONE
} imkd_motion_source;

/* The result of a push, as in imkd/synchronizer.hpp. Only a kept item changes the synchronizer. */
typedef enum imkd_pushed {
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
  const char* device;    /* NULL: "auto"; otherwise "cpu" or "cuda" */
  float score_threshold; /* 0: the spec's */
  uint32_t reserved;
  uint32_t debug;       /* since version 2; 1: fill imkd_result.debug with the gate maps */
  uint32_t stage_times; /* since version 2; 1: time each stage on the GPU too, which costs time */
  const char* trust;    /* since version 7: whose bundles are loaded, see DetectorOptions; NULL: any */
} imkd_options;

typedef struct imkd_image {
  uint32_t struct_size;
  int32_t width, height;  /* px, those of the calibration */
  uint32_t has_timestamp; /* 0: exposed at the frame's timestamp_ns */
  int64_t timestamp_ns;
  /* The first pixel of an RGB image; with chroma the Y plane; NULL: the camera is absent. */
  const uint8_t* data;
  /* Bytes, may be negative. Row stride 0: dense rows. Pixel stride 0: 3. Channel stride 0: 1; with a pixel stride of 1
   * or -1 it stays 0, one grey byte for all channels. */
  ptrdiff_t row_stride, pixel_stride, channel_stride;
  const uint8_t* chroma;   /* NV12: U, V pairs at half the resolution; width and height are even */
  ptrdiff_t chroma_stride; /* bytes from row to row; 0: dense rows */
  uint32_t yuv;            /* imkd_yuv */
  uint32_t reserved;
  /* Since version 5: (4, 4) row-major ego pose at timestamp_ns; NULL: from the poses and the twist of the frame. */
  const double* T_world_ego;
} imkd_image;

typedef struct imkd_sweep {
  uint32_t struct_size;
  int32_t radar; /* index into the rig's radars */
  int32_t count;
  uint32_t has_timestamp; /* 0: measured at the frame's timestamp_ns */
  int64_t timestamp_ns;
  /* (count, 5): x, y, z m in the radar frame, intensity dB, radial velocity m/s (positive when receding). A point with
   * a non-finite number, nearer than 0.1 m, or an intensity or velocity outside -300..300, is invalid and dropped. */
  const float* points;
  const double* T_world_ego; /* (4, 4) row-major ego pose at timestamp_ns, or NULL */
} imkd_sweep;

/* One moment of all sensors. The memory stays the caller's and is read during the call only. */
typedef struct imkd_frames {
  uint32_t struct_size;
  uint32_t image_count;     /* the rig's number of cameras */
  int64_t timestamp_ns;     /* reference time */
  const imkd_image* images; /* in the rig's order; all with the same struct_size */
  const imkd_sweep* sweeps; /* any number per radar, any order; all with the same struct_size */
  uint32_t sweep_count;
  uint32_t reserved;
  const double* T_world_ego; /* (4, 4) row-major ego pose at timestamp_ns, or NULL */
  /* vx, vy m/s and yaw rate rad/s in the ego frame, or NULL; at most 100 m/s and 2 pi rad/s. */
  const double* twist;
} imkd_frames;

/* A box in the ego frame. */
typedef struct imkd_detection {
  float x, y, z;               /* centre, m */
  float length, width, height; /* m */
  float yaw;                   /* rad about +z from +x */
  float vx, vy;                /* m/s; NaN: the bundle's velocity was not trained */
  float score;                 /* 0..1 */
  int32_t label;               /* class index, see imkd_detector_name */
} imkd_detection;

/* One value per BEV cell. */
typedef struct imkd_map {
  const char* name;
  int32_t rows, columns;
  const float* data; /* (rows, columns) */
} imkd_map;

/* Since version 5: what is unlike the bundle's contract, a value of WarningCode in imkd/result.hpp: 101 is W0101. */
typedef struct imkd_warning {
  int32_t code;
  char text[256]; /* ends in 0 */
} imkd_warning;

/* The pointers are valid until the next call with the handle. */
typedef struct imkd_result {
  uint32_t struct_size;
  uint32_t detection_count;
  int64_t timestamp_ns;
  const void* detections; /* imkd_detection, detection_stride bytes apart, best first: use imkd_detection_at */
  uint32_t detection_stride;
  int32_t mode; /* imkd_mode */
  uint32_t camera_count, radar_count;
  const uint8_t* camera_states; /* imkd_sensor_state, in the rig's order */
  const uint8_t* radar_states;
  int32_t radar_points, radar_points_invalid, radar_points_outside, radar_points_overflow;
  int32_t boxes_invalid, past_frames, ego_speed_estimated;
  float ego_speed, ego_speed_residual; /* m/s; since version 5 the speed is NaN where it is unknown */
  uint32_t stage_count;
  const float* timings_us; /* by stage */
  float total_us;
  int32_t segmentation_rows, segmentation_columns;
  uint32_t reserved;
  const float* segmentation; /* (rows, columns) probability of a vehicle, or NULL */
  /* Since version 2: the gates, 0..1, as imkd_map, debug_stride bytes apart: use imkd_map_at. */
  const void* debug;
  uint32_t debug_count, debug_stride;
  /* Since version 4; 1: the fused map has a non-finite value and is not used by later frames. */
  int32_t maps_invalid;
  int32_t ego_motion; /* since version 5; imkd_motion_source */
  /* Since version 5: those that hold in this frame, as imkd_warning, warning_stride bytes apart: use imkd_warning_at.
   */
  const void* warnings;
  uint32_t warning_count, warning_stride;
  /* Since version 6: (4, 4) row-major ego pose at timestamp_ns; vx, vy m/s and yaw rate rad/s in the ego frame. NULL
   * where they are unknown. */
  const double* T_world_ego;
  const double* twist;
  /* Since version 7; 1: the frame was replayed as one CUDA graph. */
  uint32_t replayed;
  uint32_t reserved_2;
  /* Since version 7: why no frame is, which costs time; "" where frames are, or will be from the second with an image
   * on. */
  const char* why_not_replayed;
} imkd_result;

static inline const imkd_detection* imkd_detection_at(const imkd_result* result, uint32_t index) {
  return (const imkd_detection*)((const char*)result->detections + (size_t)index * result->detection_stride);
}

static inline const imkd_map* imkd_map_at(const imkd_result* result, uint32_t index) {
  return (const imkd_map*)((const char*)result->debug + (size_t)index * result->debug_stride);
}

static inline const imkd_warning* imkd_warning_at(const imkd_result* result, uint32_t index) {
  return (const imkd_warning*)((const char*)result->warnings + (size_t)index * result->warning_stride);
}

typedef enum imkd_names {
  IMKD_CLASSES,
  IMKD_CAMERAS,
  IMKD_RADARS,
  IMKD_STAGES,
  IMKD_MODES,
  IMKD_SENSOR_STATES,
  IMKD_PUSHED,
  IMKD_MOTION_SOURCES, /* since version 5 */
  IMKD_TRACK_STATES    /* since version 6 */
} imkd_names;

/* The version of the library; IMKD_ABI_VERSION is that of the header. */
IMKD_API uint32_t imkd_abi_version(void);
/* The libonnxruntime.so to open; call it before the first load. NULL: the environment's IMKD_ORT_LIBRARY, otherwise the
 * one that the dynamic loader resolves. */
IMKD_API int imkd_set_onnxruntime(const char* path);

/* An empty handle; NULL if out of memory. */
IMKD_API imkd_detector* imkd_detector_new(void);
/* NULL is allowed. No call with the handle may be in progress. */
IMKD_API void imkd_detector_destroy(imkd_detector* detector);
/* bundle: a folder NAME.imkd. rig: the path of a JSON file, or the JSON itself if it begins with "{". options may be
 * NULL. A second load replaces the model; a failed load leaves the handle unchanged. */
IMKD_API int imkd_detector_load(imkd_detector* detector, const char* bundle, const char* rig,
                                const imkd_options* options);
IMKD_API int imkd_detector_set_rig(imkd_detector* detector, const char* rig);
IMKD_API int imkd_detector_infer(imkd_detector* detector, const imkd_frames* frames, imkd_result* result);
/* Since version 7, for images that a CUDA stream is still writing: the next infer waits, on the GPU, for the work that
 * is in `stream` now: a cudaStream_t, also cudaStreamLegacy or cudaStreamPerThread; NULL is the default stream. On the
 * CPU nothing is waited for. */
IMKD_API int imkd_detector_wait_for(imkd_detector* detector, void* stream);
/* Discards the past frames. */
IMKD_API int imkd_detector_reset(imkd_detector* detector);
/* The text of the handle's last failure, "error[E0402] what / where / how to fix"; "" if no call failed. Valid until
 * this thread calls this function again. */
IMKD_API const char* imkd_detector_error(const imkd_detector* detector);
/* The name of a class, camera, radar, stage, mode, sensor state, imkd_pushed, motion source or track state; NULL if the
 * index is too large. Valid until the handle's next load or set_rig. The last six lists are the library's: the handle
 * may be NULL. */
IMKD_API const char* imkd_detector_name(const imkd_detector* detector, imkd_names names, uint32_t index);

/* ---- live input, since version 3; imkd/synchronizer.hpp and imkd/monitor.hpp define the terms ----
 * Every time is an argument, in ns; now_ns is on the clock of the timestamps. An image or sweep needs its own time:
 * has_timestamp is 1. model: a folder NAME.imkd, or the JSON of a spec if it begins with "{". rig, load, reset and
 * error work as for the detector.
 *
 *   imkd_synchronizer_push_camera(synchronizer, 0, &image, now_ns, give_back, buffer, NULL);   in a driver's thread
 *   while (imkd_synchronizer_pop(synchronizer, now_ns, &frames, NULL) == IMKD_OK && frames)    in the frame loop
 *     if (imkd_detector_infer(detector, frames, &result) == IMKD_OK) imkd_watchdog_beat(watchdog); */

typedef struct imkd_synchronizer_options {
  uint32_t struct_size;
  int32_t max_images; /* stored per camera; 0: 8 */
  int32_t max_sweeps; /* stored per radar; 0: 32 */
  uint32_t reserved;
  /* The sensor whose items define the frames; NULL: the rig's first camera, otherwise its first radar. */
  const char* reference;
  double tolerance; /* s; 0: 0.04 */
  /* s; 0: 0.1, 1, 0.1, 1. For a limit of practically 0 use 1e-9. */
  double timeout, max_delay, max_future, lost_after;
} imkd_synchronizer_options;

typedef struct imkd_counts {
  uint32_t struct_size;
  uint32_t reserved;
  int64_t kept, late, duplicate, future, invalid; /* items */
  int64_t complete, incomplete, dropped, expired; /* frames */
  /* Everything was discarded because now jumped back by more than max_delay, or the clock stepped back by less, as in a
   * short recording that plays in a loop. */
  int64_t restarts;
} imkd_counts;

/* Called once with its user, on any thread, when the library has read lent memory for the last time. It must not call
 * the handle. */
typedef void (*imkd_release)(void* user);

IMKD_API imkd_synchronizer* imkd_synchronizer_new(void);
IMKD_API void imkd_synchronizer_destroy(imkd_synchronizer* synchronizer);
IMKD_API int imkd_synchronizer_load(imkd_synchronizer* synchronizer, const char* model, const char* rig,
                                    const imkd_synchronizer_options* options);
/* release NULL: pixels and points are copied. Otherwise they are lent until release is called, which also happens when
 * the call fails or the item is not kept. pushed: receives an imkd_pushed; may be NULL. */
IMKD_API int imkd_synchronizer_push_camera(imkd_synchronizer* synchronizer, int32_t camera, const imkd_image* image,
                                           int64_t now_ns, imkd_release release, void* user, int32_t* pushed);
IMKD_API int imkd_synchronizer_push_radar(imkd_synchronizer* synchronizer, const imkd_sweep* sweep, int64_t now_ns,
                                          imkd_release release, void* user, int32_t* pushed);
/* T_world_ego: (4, 4) row-major. twist: vx, vy m/s and yaw rate rad/s in the ego frame. Either may be NULL, and
 * follow in a push of its own with the same timestamp_ns; a push of neither is IMKD_PUSHED_INVALID. */
IMKD_API int imkd_synchronizer_push_ego(imkd_synchronizer* synchronizer, const double* T_world_ego, const double* twist,
                                        int64_t timestamp_ns, int64_t now_ns, int32_t* pushed);
/* The oldest frame that is ready, for imkd_detector_infer; NULL if none is. Valid until the handle's next pop or
 * destroy. Its images and sweeps are struct_size apart. complete: receives 1 if every sensor has an item within
 * tolerance of the frame's time and, where ego motion was ever pushed, it has reached that time and gives a pose or a
 * twist there; may be NULL. */
IMKD_API int imkd_synchronizer_pop(imkd_synchronizer* synchronizer, int64_t now_ns, const imkd_frames** frames,
                                   uint32_t* complete);
/* Discards everything but the counts. */
IMKD_API int imkd_synchronizer_reset(imkd_synchronizer* synchronizer);
IMKD_API int imkd_synchronizer_counts(const imkd_synchronizer* synchronizer, imkd_counts* counts);
IMKD_API const char* imkd_synchronizer_error(const imkd_synchronizer* synchronizer);

typedef struct imkd_monitor_options {
  uint32_t struct_size;
  int32_t frozen_after; /* consecutive items with the same contents; 0: 3 */
  double lost_after;    /* s of silence; 0: 2 */
} imkd_monitor_options;

/* The pointers are valid until the handle's next check or destroy. */
typedef struct imkd_health {
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
/* Reads the memory during the call only. An image whose data is NULL, or of another size, makes the camera invalid. */
IMKD_API int imkd_monitor_observe_camera(imkd_monitor* monitor, int32_t camera, const imkd_image* image,
                                         int64_t now_ns);
IMKD_API int imkd_monitor_observe_radar(imkd_monitor* monitor, const imkd_sweep* sweep, int64_t now_ns);
IMKD_API int imkd_monitor_check(imkd_monitor* monitor, int64_t now_ns, imkd_health* health);
/* Discards everything. */
IMKD_API int imkd_monitor_reset(imkd_monitor* monitor);
IMKD_API const char* imkd_monitor_error(const imkd_monitor* monitor);

typedef struct imkd_watchdog_options {
  uint32_t struct_size;
  uint32_t without_timer; /* 1: no thread; imkd_watchdog_poll does its work */
  double deadline;        /* s from one beat to the next */
  /* Receives the s since the last beat, once per miss, on the timer's thread. It may destroy the watchdog. May be
   * NULL. */
  void (*missed)(double seconds, void* user);
  int64_t (*clock)(void* user); /* ns, never decreasing; NULL: the machine's steady clock */
  void* user;                   /* argument of both */
} imkd_watchdog_options;

IMKD_API imkd_watchdog* imkd_watchdog_new(void);
/* Waits for a running missed(), unless missed() itself calls it. */
IMKD_API void imkd_watchdog_destroy(imkd_watchdog* watchdog);
/* Counts as the first beat. A running watchdog is restarted. */
IMKD_API int imkd_watchdog_start(imkd_watchdog* watchdog, const imkd_watchdog_options* options);
IMKD_API int imkd_watchdog_beat(imkd_watchdog* watchdog);
IMKD_API int imkd_watchdog_poll(imkd_watchdog* watchdog);
/* overdue: receives 1 from a miss to the next beat. misses: receives the number since the start. Either may be NULL. */
IMKD_API int imkd_watchdog_state(const imkd_watchdog* watchdog, uint32_t* overdue, int64_t* misses);
IMKD_API const char* imkd_watchdog_error(const imkd_watchdog* watchdog);

/* ---- tracks, since version 6; imkd/tracker.hpp defines the terms ----
 *
 *   if (imkd_detector_infer(detector, frames, &result) == IMKD_OK)
 *     if (imkd_tracker_update(tracker, &result, &tracks) == IMKD_OK) puts("tracks"); */

typedef enum imkd_track_state { IMKD_TRACK_TENTATIVE, IMKD_TRACK_CONFIRMED, IMKD_TRACK_COASTING } imkd_track_state;

typedef struct imkd_tracker_options {
  uint32_t struct_size;
  int32_t max_tracks;                /* 0: 512 */
  double birth_score, confirm_score; /* 0: 0.2, 0.5. For a limit of practically 0 use 1e-9. */
  double max_age, max_gap;           /* s; 0: 2, 2 */
} imkd_tracker_options;

typedef struct imkd_track {
  int64_t id;                 /* from 1; never repeats in the life of a handle's load */
  int32_t state;              /* imkd_track_state */
  uint32_t velocity_measured; /* 0: no detection had a velocity; it follows from positions alone */
  imkd_detection box;         /* in the ego frame at the result's timestamp_ns; the score is that of the track */
  float velocity_std;         /* m/s, along each axis */
  float age, coasting;        /* s since the first and since the last detection */
  int32_t hits;               /* detections */
  int32_t detection;          /* index of the detection in the result; -1: none in this frame */
} imkd_track;

/* The pointer is valid until the handle's next update, load or destroy. */
typedef struct imkd_tracks {
  uint32_t struct_size;
  uint32_t track_count;
  const void* tracks; /* imkd_track by id, track_stride bytes apart: use imkd_track_at */
  uint32_t track_stride;
  uint32_t over_ground; /* 0: no ego motion is known, the objects are tracked in the ego frame */
  /* Of this frame, ignored: not finite or out of range, and beyond the memory. */
  int32_t detections_invalid, detections_overflow;
  int64_t restarts, repeats; /* so often all tracks were discarded, and a frame ignored for its time */
} imkd_tracks;

static inline const imkd_track* imkd_track_at(const imkd_tracks* tracks, uint32_t index) {
  return (const imkd_track*)((const char*)tracks->tracks + (size_t)index * tracks->track_stride);
}

IMKD_API imkd_tracker* imkd_tracker_new(void);
IMKD_API void imkd_tracker_destroy(imkd_tracker* tracker);
/* model: as above. options may be NULL. */
IMKD_API int imkd_tracker_load(imkd_tracker* tracker, const char* model, const imkd_tracker_options* options);
/* Of the next frame. result: of imkd_detector_infer, or filled by the caller: its detections, timestamp_ns, T_world_ego
 * and twist are read. */
IMKD_API int imkd_tracker_update(imkd_tracker* tracker, const imkd_result* result, imkd_tracks* tracks);
/* Discards the tracks; ids continue. */
IMKD_API int imkd_tracker_reset(imkd_tracker* tracker);
IMKD_API const char* imkd_tracker_error(const imkd_tracker* tracker);

#ifdef __cplusplus
}
#endif
#endif
