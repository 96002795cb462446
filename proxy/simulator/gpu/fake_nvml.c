/* A stand-in libnvidia-ml.so.1: the part of NVML that monitoring tools call, answered from a file in
 * shared memory that a simulator writes (JOULEPROXY_NVML_STANDIN; layout: core/power_timeline.py).
 * Power is piecewise constant, so the energy counter is its exact integral, quantised as a real one is.
 * Names and versions say "simulated". Values and struct layouts are those of NVIDIA's nvml.h. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9, UNKNOWN = 999
};
#define MAGIC 0x314D49534C554F4Aull
#define SEGMENTS 8192
#define PROCESSES 8

typedef struct { int64_t t_ns; double energy_mj, watts; } Segment;
typedef struct { uint32_t pid, sm; uint64_t memory; } Process;
typedef struct { uint64_t magic; uint32_t devices, version; int32_t init_error, pad; char driver[64]; } Header;
typedef struct {
    uint64_t sequence, segments;
    int64_t update_ns, phase_ns, average_ns, instant_ns, call_ns;
    double gain, offset_mj, limit_watts, module_watts, rated_watts;
    uint64_t memory_total, memory_used;
    uint32_t utilization, temperature, sm_mhz, memory_mhz, architecture, mig;
    int32_t error_all, error_energy, error_power, error_fields, error_samples;
    uint32_t processes;
    Process process[PROCESSES];
    char name[96], uuid[64];
    Segment segment[SEGMENTS];
} Device;

static Header *header;
static Device *devices;
static int references, writable;
/* What each counter showed last, since it was reset. */
static struct { double offset_mj; unsigned long long mj; } *shown;

size_t standin_device_bytes(void) { return sizeof(Device); }

/* ---- time and energy ---- */

/* A clock that tests set, in place of CLOCK_MONOTONIC; 0: none. Calls that take long move it on. */
static int64_t virtual_ns;
void jouleproxy_standin_set_clock(int64_t t_ns) { virtual_ns = t_ns; }
int64_t jouleproxy_standin_clock(void) { return virtual_ns; }

static int64_t clock_ns(clockid_t which) {
    struct timespec t;
    if (virtual_ns && which == CLOCK_MONOTONIC) return virtual_ns;
    clock_gettime(which, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Unix time less CLOCK_MONOTONIC, found once: the driver stamps a sample when it is taken, so that its stamp is
   the same in every call. An offset read anew in each call would differ by the time between the two readings,
   and the newest sample could come twice. The closest of several pairs of readings is used. */
static int64_t unix_offset_ns(void) {
    static int64_t offset, known;
    if (known) return offset;
    int64_t best = INT64_MAX;
    for (int i = 0; i < 5; i++) {
        int64_t before = clock_ns(CLOCK_MONOTONIC), unix_ns = clock_ns(CLOCK_REALTIME);
        int64_t after = clock_ns(CLOCK_MONOTONIC);
        if (after - before >= best) continue;
        best = after - before;
        offset = unix_ns - (before + best / 2);
    }
    known = 1;
    return offset;
}

static const Segment *segment_at(const Device *d, int64_t t_ns) {
    uint64_t high = d->segments - 1, low = d->segments > SEGMENTS ? d->segments - SEGMENTS : 0;
    while (low < high) {
        uint64_t middle = (low + high + 1) / 2;
        if (d->segment[middle % SEGMENTS].t_ns <= t_ns) low = middle; else high = middle - 1;
    }
    return &d->segment[low % SEGMENTS];
}

static double energy_mj(const Device *d, int64_t t_ns) {
    const Segment *s = segment_at(d, t_ns);
    return s->energy_mj + s->watts * 1e-6 * (double)(t_ns - s->t_ns);
}

static int64_t edge_ns(const Device *d, int64_t t_ns) {
    if (d->update_ns <= 0) return t_ns;
    return (t_ns - d->phase_ns) / d->update_ns * d->update_ns + d->phase_ns;
}

/* Watts as a sensor that averages over `window_ns` before `t_ns` shows them. */
static double power_w(const Device *d, int64_t t_ns, int64_t window_ns) {
    if (window_ns <= 0) return d->gain * segment_at(d, t_ns)->watts;
    return d->gain * (energy_mj(d, t_ns) - energy_mj(d, t_ns - window_ns)) * 1e6 / (double)window_ns;
}

typedef struct { unsigned long long counter_mj; unsigned instant_mw, average_mw; } Reading;

static Reading read_device(const Device *d) {
    Reading r = {0};
    double offset = 0;
    for (int attempt = 0; attempt < 10000; attempt++) {  /* bounded: the writer may have died inside */
        uint64_t before = __atomic_load_n(&d->sequence, __ATOMIC_ACQUIRE);
        int64_t t = edge_ns(d, clock_ns(CLOCK_MONOTONIC));
        offset = d->offset_mj;
        double mj = d->gain * (energy_mj(d, t) - offset);
        r.counter_mj = mj > 0 ? (unsigned long long)mj : 0;
        r.instant_mw = (unsigned)(power_w(d, t, d->instant_ns) * 1e3 + .5);
        r.average_mw = (unsigned)(power_w(d, t, d->average_ns) * 1e3 + .5);
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (!(before & 1) && before == __atomic_load_n(&d->sequence, __ATOMIC_RELAXED)) break;
        sched_yield();
    }
    /* A register holds what it showed: a segment written late, of less power, cannot take it back. */
    if (shown[d - devices].offset_mj == offset && r.counter_mj < shown[d - devices].mj)
        r.counter_mj = shown[d - devices].mj;
    shown[d - devices].offset_mj = offset;
    shown[d - devices].mj = r.counter_mj;
    return r;
}

/* ---- library ---- */

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    if (references) { references++; return OK; }
    const char *path = getenv("JOULEPROXY_NVML_STANDIN");
    int fd = path ? open(path, O_RDWR) : -1;
    writable = fd >= 0;
    if (path && fd < 0) fd = open(path, O_RDONLY);
    struct stat s;
    if (fd < 0) return DRIVER_NOT_LOADED;
    if (fstat(fd, &s) || (size_t)s.st_size < sizeof(Header)) { close(fd); return DRIVER_NOT_LOADED; }
    header = mmap(0, (size_t)s.st_size, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED, fd, 0);
    close(fd);
    if (header == MAP_FAILED || header->magic != MAGIC) return DRIVER_NOT_LOADED;
    if ((size_t)s.st_size < sizeof(Header) + header->devices * sizeof(Device)) return DRIVER_NOT_LOADED;
    if (header->init_error) return header->init_error;
    devices = (Device *)(header + 1);
    free(shown);
    shown = calloc(header->devices, sizeof *shown);
    if (!shown) return UNKNOWN;
    references = 1;
    return OK;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlInit(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { if (!references) return UNINITIALIZED; references--; return OK; }

const char *nvmlErrorString(int code) {
    switch (code) {
    case OK: return "Success";
    case UNINITIALIZED: return "Uninitialized";
    case INVALID_ARGUMENT: return "Invalid Argument";
    case NOT_SUPPORTED: return "Not Supported";
    case NO_PERMISSION: return "Insufficient Permissions";
    case NOT_FOUND: return "Not Found";
    case INSUFFICIENT_SIZE: return "Insufficient Size";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case 10: return "Timeout";
    case 15: return "GPU is lost";
    default: return "Unknown Error";
    }
}

static int put(char *to, unsigned size, const char *text) {
    if (strlen(text) + 1 > size) return INSUFFICIENT_SIZE;
    memcpy(to, text, strlen(text) + 1);
    return OK;
}
int nvmlSystemGetDriverVersion(char *b, unsigned n) { return references ? put(b, n, header->driver) : UNINITIALIZED; }
int nvmlSystemGetNVMLVersion(char *b, unsigned n) { return put(b, n, "13.580.0-simulated"); }
int nvmlSystemGetCudaDriverVersion(int *v) { *v = 13000; return OK; }
int nvmlSystemGetCudaDriverVersion_v2(int *v) { *v = 13000; return OK; }

/* ---- handles ---- */

int nvmlDeviceGetCount_v2(unsigned *n) { if (!references) return UNINITIALIZED; *n = header->devices; return OK; }
int nvmlDeviceGetCount(unsigned *n) { return nvmlDeviceGetCount_v2(n); }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, Device **d) {
    if (!references) return UNINITIALIZED;
    if (i >= header->devices) return INVALID_ARGUMENT;
    *d = devices + i;
    return OK;
}
int nvmlDeviceGetHandleByIndex(unsigned i, Device **d) { return nvmlDeviceGetHandleByIndex_v2(i, d); }
int nvmlDeviceGetHandleByUUID(const char *uuid, Device **d) {
    if (!references) return UNINITIALIZED;
    for (unsigned i = 0; i < header->devices; i++)
        if (!strcmp(uuid, devices[i].uuid)) { *d = devices + i; return OK; }
    return NOT_FOUND;
}

static int enter(const Device *d) {
    if (!references) return UNINITIALIZED;
    if (d < devices || d >= devices + header->devices) return INVALID_ARGUMENT;
    if (d->call_ns > 0 && virtual_ns) virtual_ns += d->call_ns;
    else if (d->call_ns > 0) {
        struct timespec t = {d->call_ns / 1000000000, d->call_ns % 1000000000};
        nanosleep(&t, 0);
    }
    return d->error_all;
}
#define ENTER do { int code = enter(d); if (code) return code; } while (0)
#define FAIL(code) do { if (code) return (code); } while (0)
/* One getter of one number; the value may use d. */
#define GETTER(function, type, value) int function(Device *d, type *out) { ENTER; *out = (type)(value); return OK; }
#define GETTER2(function, type, first, second) \
    int function(Device *d, type *a, type *b) { ENTER; *a = (type)(first); *b = (type)(second); return OK; }
#define UNSUPPORTED(function) int function(Device *d) { ENTER; return NOT_SUPPORTED; }

/* ---- energy and power ---- */

int nvmlDeviceGetTotalEnergyConsumption(Device *d, unsigned long long *mj) {
    ENTER; FAIL(d->error_energy);
    *mj = read_device(d).counter_mj;
    return OK;
}
int nvmlDeviceGetPowerUsage(Device *d, unsigned *mw) {
    ENTER; FAIL(d->error_power);
    *mw = read_device(d).average_mw;
    return OK;
}

typedef union { double d; unsigned u; unsigned long long ull; } Value;
typedef struct { unsigned field, scope; long long timestamp_us, latency_us; int type, code; Value value; } Field;
enum { SCOPE_GPU = 0, SCOPE_MODULE = 1, TYPE_UINT = 1, TYPE_ULL = 3 };

static void fill(const Device *d, Field *f, const Reading *r) {
    unsigned extra = f->scope == SCOPE_MODULE ? (unsigned)(d->module_watts * 1e3) : 0;
    unsigned limit = (unsigned)(d->limit_watts * 1e3);
    f->type = TYPE_UINT; f->code = OK;
    if (f->scope != SCOPE_GPU && !extra) { f->code = NOT_SUPPORTED; return; }
    switch (f->field) {
    case 83: f->type = TYPE_ULL; f->value.ull = r->counter_mj; f->code = d->error_energy; break;
    case 185: f->value.u = r->average_mw + extra; f->code = d->error_fields; break;
    case 186: f->value.u = r->instant_mw + extra; f->code = d->error_fields; break;
    case 187: f->value.u = 200000; break;
    case 188: case 189: case 190: f->value.u = limit; break;
    default: f->code = NOT_SUPPORTED;
    }
}
int nvmlDeviceGetFieldValues(Device *d, int n, Field *f) {
    ENTER;
    Reading r = read_device(d);
    for (int i = 0; i < n; i++) {
        f[i].timestamp_us = clock_ns(CLOCK_REALTIME) / 1000;
        f[i].latency_us = 0;
        fill(d, &f[i], &r);
    }
    return OK;
}

typedef struct { unsigned long long t_us; Value value; } Sample;
int nvmlDeviceGetSamples(Device *d, int kind, unsigned long long last_us, int *type, unsigned *count, Sample *out) {
    ENTER; FAIL(d->error_samples);
    if (kind != 0) return NOT_SUPPORTED;                            /* NVML_TOTAL_POWER_SAMPLES only */
    const unsigned capacity = 120;
    *type = TYPE_UINT;
    if (!out) { *count = capacity; return OK; }
    int64_t period = d->update_ns > 0 ? d->update_ns : 20000000;
    int64_t now = clock_ns(CLOCK_MONOTONIC), wall = unix_offset_ns();
    int64_t newest = (now - d->phase_ns) / period * period + d->phase_ns;
    unsigned n = 0;
    for (int i = (int)capacity - 1; i >= 0; i--) {
        int64_t t = newest - i * period;
        unsigned long long stamp = (unsigned long long)((wall + t) / 1000);
        if (stamp <= last_us || n >= *count) continue;
        out[n].t_us = stamp;
        out[n++].value.u = (unsigned)(power_w(d, t, d->instant_ns) * 1e3 + .5);
    }
    *count = n;
    return n ? OK : NOT_FOUND;
}

static double most_watts(const Device *d) { return d->rated_watts > 0 ? d->rated_watts : d->limit_watts; }

GETTER(nvmlDeviceGetPowerManagementLimit, unsigned, d->limit_watts * 1e3)
GETTER(nvmlDeviceGetEnforcedPowerLimit, unsigned, d->limit_watts * 1e3)
GETTER(nvmlDeviceGetPowerManagementDefaultLimit, unsigned, most_watts(d) * 1e3)
GETTER2(nvmlDeviceGetPowerManagementLimitConstraints, unsigned, 200000, most_watts(d) * 1e3)
int nvmlDeviceSetPowerManagementLimit(Device *d, unsigned mw) {
    ENTER;
    if (d->rated_watts <= 0 || !writable) return NO_PERMISSION;
    if (mw < 200000 || mw > d->rated_watts * 1e3) return INVALID_ARGUMENT;
    d->limit_watts = mw / 1e3;
    return OK;
}
int nvmlDeviceSetPersistenceMode(Device *d, int mode) { ENTER; (void)mode; return NO_PERMISSION; }

/* ---- identity and state ---- */

int nvmlDeviceGetName(Device *d, char *b, unsigned n) { ENTER; return put(b, n, d->name); }
int nvmlDeviceGetUUID(Device *d, char *b, unsigned n) { ENTER; return put(b, n, d->uuid); }
GETTER(nvmlDeviceGetIndex, unsigned, d - devices)
GETTER(nvmlDeviceGetMinorNumber, unsigned, d - devices)
GETTER(nvmlDeviceGetArchitecture, unsigned, d->architecture)
GETTER2(nvmlDeviceGetCudaComputeCapability, int, d->architecture, 0)
GETTER(nvmlDeviceGetPersistenceMode, int, 1)
GETTER(nvmlDeviceGetPerformanceState, int, 0)
GETTER(nvmlDeviceGetDisplayActive, int, 0)
GETTER(nvmlDeviceGetDisplayMode, int, 0)
GETTER(nvmlDeviceGetComputeMode, int, 0)
GETTER(nvmlDeviceIsMigDeviceHandle, unsigned, 0)
GETTER2(nvmlDeviceGetEncoderUtilization, unsigned, 0, 20000)
GETTER2(nvmlDeviceGetDecoderUtilization, unsigned, 0, 20000)
UNSUPPORTED(nvmlDeviceGetFanSpeed)
UNSUPPORTED(nvmlDeviceGetC2cModeInfoV)
UNSUPPORTED(nvmlDeviceGetDriverModel)
UNSUPPORTED(nvmlDeviceGetDriverModel_v2)

int nvmlDeviceGetMigMode(Device *d, unsigned *current, unsigned *pending) {
    ENTER;
    if (d->architecture < 7) return NOT_SUPPORTED;                   /* Ampere and newer */
    *current = *pending = d->mig;
    return OK;
}
typedef struct { unsigned gpu, memory; } Utilization;
int nvmlDeviceGetUtilizationRates(Device *d, Utilization *u) { ENTER; u->gpu = d->utilization; u->memory = 0; return OK; }
typedef struct { unsigned long long total, free, used; } Memory;
int nvmlDeviceGetMemoryInfo(Device *d, Memory *m) {
    ENTER;
    m->total = d->memory_total; m->used = d->memory_used; m->free = m->total - m->used;
    return OK;
}
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } MemoryV2;
int nvmlDeviceGetMemoryInfo_v2(Device *d, MemoryV2 *m) {
    ENTER;
    m->total = d->memory_total; m->reserved = 0; m->used = d->memory_used; m->free = m->total - m->used;
    return OK;
}
int nvmlDeviceGetBAR1MemoryInfo(Device *d, Memory *m) { ENTER; m->total = m->free = d->memory_total; m->used = 0; return OK; }
int nvmlDeviceGetTemperature(Device *d, int sensor, unsigned *t) { ENTER; (void)sensor; *t = d->temperature; return OK; }
typedef struct { unsigned version; int sensor, temperature; } TemperatureV;
int nvmlDeviceGetTemperatureV(Device *d, TemperatureV *t) { ENTER; t->temperature = (int)d->temperature; return OK; }
int nvmlDeviceGetClockInfo(Device *d, int kind, unsigned *mhz) { ENTER; *mhz = kind == 2 ? d->memory_mhz : d->sm_mhz; return OK; }
int nvmlDeviceGetMaxClockInfo(Device *d, int kind, unsigned *mhz) { return nvmlDeviceGetClockInfo(d, kind, mhz); }
int nvmlDeviceGetPcieThroughput(Device *d, int counter, unsigned *v) { ENTER; (void)counter; *v = 0; return OK; }
int nvmlDeviceGetTotalEccErrors(Device *d, int error, int counter, unsigned long long *v) {
    ENTER; (void)error; (void)counter; *v = 0; return OK;
}
typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } Pci;
int nvmlDeviceGetPciInfo_v3(Device *d, Pci *p) {
    ENTER;
    memset(p, 0, sizeof *p);
    p->bus = 0x17 + (unsigned)(d - devices); p->id = 0x233010de; p->subsystem = 0x16c110de;
    snprintf(p->legacy, sizeof p->legacy, "0000:%02X:00.0", p->bus);
    snprintf(p->bus_id, sizeof p->bus_id, "00000000:%02X:00.0", p->bus);
    return OK;
}

/* ---- processes ---- */

typedef struct { unsigned pid; unsigned long long memory; unsigned gpu_instance, compute_instance; } ProcessInfo;
int nvmlDeviceGetComputeRunningProcesses_v3(Device *d, unsigned *count, ProcessInfo *out) {
    ENTER;
    unsigned have = d->processes, room = *count;
    *count = have;
    if (have > room || (have && !out)) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < have; i++)
        out[i] = (ProcessInfo){d->process[i].pid, d->process[i].memory, ~0u, ~0u};
    return OK;
}
int nvmlDeviceGetComputeRunningProcesses_v2(Device *d, unsigned *n, ProcessInfo *p) { return nvmlDeviceGetComputeRunningProcesses_v3(d, n, p); }
int nvmlDeviceGetGraphicsRunningProcesses_v3(Device *d, unsigned *n, ProcessInfo *p) { ENTER; (void)p; *n = 0; return OK; }
int nvmlDeviceGetGraphicsRunningProcesses_v2(Device *d, unsigned *n, ProcessInfo *p) { ENTER; (void)p; *n = 0; return OK; }
int nvmlDeviceGetMPSComputeRunningProcesses_v3(Device *d, unsigned *n, ProcessInfo *p) { ENTER; (void)p; *n = 0; return OK; }
typedef struct { unsigned pid; unsigned long long t_us; unsigned sm, memory, encoder, decoder; } ProcessUtilization;
int nvmlDeviceGetProcessUtilization(Device *d, ProcessUtilization *out, unsigned *count, unsigned long long last_us) {
    ENTER; (void)last_us;
    unsigned have = d->processes, room = *count;
    *count = have;
    if (!have) return NOT_FOUND;
    if (!out || room < have) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < have; i++)
        out[i] = (ProcessUtilization){d->process[i].pid, (unsigned long long)(clock_ns(CLOCK_REALTIME) / 1000), d->process[i].sm, 0, 0, 0};
    return OK;
}
