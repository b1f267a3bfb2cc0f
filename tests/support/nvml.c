/* The symbols of libnvidia-ml.so.1 that are used, over GPUs that the environment describes.
 *
 * FAKE_NVML_GPUS=4        four GPUs
 * FAKE_NVML_MODEL=NAME    their model
 * FAKE_NVML_MIG=2:3       GPU 2 is cut into three slices
 * FAKE_NVML_LOST=1        GPU 1 does not answer
 * FAKE_NVML_INIT=18       nvmlInit fails with that error
 * FAKE_NVML_USER=1:4711   process 4711 uses GPU 1
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, GPU_IS_LOST = 15 };
typedef struct { unsigned pid; unsigned long long used; unsigned instance, compute; } process;
typedef struct device { int index; int slice; } device;
typedef struct { unsigned long long total, free, used; } memory;

static device devices[16][9];

#ifndef SETTINGS
#define SETTINGS ""
#endif

/* The environment has it or, for processes that get none of it, the library itself: "NAME=VALUE NAME=VALUE". */
static const char *setting(const char *name) {
  const char *found = getenv(name);
  if (found) return found;
  found = strstr(SETTINGS, name);
  return found ? found + strlen(name) + 1 : NULL;
}

static int number(const char *name, int usual) {
  const char *text = setting(name);
  return text ? atoi(text) : usual;
}

static int slices_of(int index) {
  const char *text = setting("FAKE_NVML_MIG");
  int which, count;
  return text && sscanf(text, "%d:%d", &which, &count) == 2 && which == index ? count : -1;
}

static int lost(const device *it) { return number("FAKE_NVML_LOST", -1) == it->index; }

static const char *model(void) {
  const char *text = setting("FAKE_NVML_MODEL");
  return text ? text : "NVIDIA H100 80GB HBM3";
}

int nvmlInitWithFlags(unsigned flags) { (void)flags; return number("FAKE_NVML_INIT", SUCCESS); }
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int code) {
  return code == 18 ? "Driver/library version mismatch" : code == GPU_IS_LOST ? "GPU is lost" : "Some error";
}
int nvmlDeviceGetCount_v2(unsigned *count) { *count = number("FAKE_NVML_GPUS", 0); return SUCCESS; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, device **it) {
  if ((int)index >= number("FAKE_NVML_GPUS", 0)) return NOT_FOUND;
  *it = &devices[index][0];
  (*it)->index = index;
  (*it)->slice = -1;
  return lost(*it) ? GPU_IS_LOST : SUCCESS;
}

int nvmlDeviceGetName(device *it, char *name, unsigned length) {
  snprintf(name, length, it->slice < 0 ? "%s" : "%s MIG 1g.10gb", model());
  return SUCCESS;
}

int nvmlDeviceGetUUID(device *it, char *uuid, unsigned length) {
  if (it->slice < 0) snprintf(uuid, length, "GPU-00000000-0000-0000-0000-%012d", it->index);
  else snprintf(uuid, length, "MIG-00000000-0000-0000-%04d-%012d", it->slice, it->index);
  return SUCCESS;
}

int nvmlDeviceGetMinorNumber(device *it, unsigned *minor) { *minor = it->index; return SUCCESS; }

int nvmlDeviceGetMemoryInfo(device *it, memory *info) {
  memset(info, 0, sizeof *info);
  info->total = it->slice < 0 ? 80ULL << 30 : 10ULL << 30;
  return SUCCESS;
}

int nvmlDeviceGetMigMode(device *it, unsigned *current, unsigned *pending) {
  if (!strstr(model(), "H100") && !strstr(model(), "A100")) return NOT_SUPPORTED;
  *current = *pending = slices_of(it->index) >= 0;
  return SUCCESS;
}

int nvmlDeviceGetMaxMigDeviceCount(device *it, unsigned *count) { (void)it; *count = 7; return SUCCESS; }

int nvmlDeviceGetMigDeviceHandleByIndex(device *it, unsigned index, device **part) {
  if ((int)index >= slices_of(it->index)) return NOT_FOUND;
  *part = &devices[it->index][1 + index];
  (*part)->index = it->index;
  (*part)->slice = index;
  return SUCCESS;
}

int nvmlDeviceGetGpuInstanceId(device *it, unsigned *id) { *id = it->slice + 1; return SUCCESS; }
int nvmlDeviceGetComputeInstanceId(device *it, unsigned *id) { (void)it; *id = 0; return SUCCESS; }

int nvmlDeviceGetUUID(device *, char *, unsigned);

int nvmlDeviceGetHandleByUUID(const char *uuid, device **it) {
  char own[80];
  for (int index = 0; index < number("FAKE_NVML_GPUS", 0); index++)
    for (int place = 0; place < 9; place++) {
      *it = &devices[index][place];
      (*it)->index = index;
      (*it)->slice = place - 1;
      nvmlDeviceGetUUID(*it, own, sizeof own);
      if (!strcmp(own, uuid)) return SUCCESS;
    }
  return NOT_FOUND;
}

int nvmlDeviceGetComputeRunningProcesses_v3(device *it, unsigned *count, process *infos) {
  const char *text = setting("FAKE_NVML_USER");
  int index, pid;
  unsigned room = *count;
  *count = text && sscanf(text, "%d:%d", &index, &pid) == 2 && index == it->index;
  if (!*count) return SUCCESS;
  if (!room) return INSUFFICIENT_SIZE;
  memset(infos, 0, sizeof *infos);
  infos->pid = pid;
  infos->used = 1 << 20;
  return SUCCESS;
}

int nvmlDeviceGetProcessUtilization(device *it, void *samples, unsigned *count, unsigned long long since) {
  (void)it; (void)samples; (void)count; (void)since;
  return NOT_SUPPORTED;
}
