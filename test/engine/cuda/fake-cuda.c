/* A CUDA without a device, for tests: device memory is host memory of a fixed size, the compiler copies its source, kernels
   and products are computed by fake-kernels.c, at once or when a graph replays. Built by fake-cuda.ts with cc. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct { int kind, headDim, isFp16, isFp8, kv; } Function;   /* kind: index in fake-kernels.h's table; -1 is axpy */
typedef struct { const Function *f; uint32_t grid[3]; uint64_t p[32]; } Node;
void fake_run(const Node *node);                                  /* fake-kernels.c */
int fake_kernel(const char *name, int *numParameters);
int fake_parameters(int kind);

static size_t total(void) { const char *mib = getenv("FAKE_CUDA_MIB"); return (size_t)(mib ? atoi(mib) : 64) << 20; }
#define TOTAL total()
static size_t used;
static int contexts, streams, events, allocations, graphs;

typedef struct Graph { int count, room; Node *nodes; } Graph;
static Graph *capturing;
static void issue(const Node *node) {
  if (!capturing) { fake_run(node); return; }
  if (capturing->count == capturing->room) capturing->nodes = realloc(capturing->nodes, (capturing->room = 2 * capturing->room + 16) * sizeof(Node));
  capturing->nodes[capturing->count++] = *node;
}

int fake_devices(void) { const char *n = getenv("FAKE_CUDA_DEVICES"); return n ? atoi(n) : 1; }
int fake_live(void) { return contexts + streams + events + allocations + graphs; }

int cuInit(uint32_t f) { return fake_devices() < 0 ? 100 : 0; }
int cuDriverGetVersion(int *v) { *v = 13000; return 0; }
int cuDeviceGetCount(int *n) { *n = fake_devices(); return 0; }
int cuDeviceGet(int *d, int i) { *d = i; return 0; }
int cuDeviceGetName(char *name, int length, int d) { strncpy(name, "Fake GPU", length); return 0; }
int cuDeviceGetAttribute(int *v, int attribute, int d) {
  const char *major = getenv("FAKE_CUDA_MAJOR");
  switch (attribute) { case 16: *v = 4; break; case 75: *v = major ? atoi(major) : 9; break; case 76: *v = 0; break; default: *v = 65536; }
  return 0;
}
int cuDevicePrimaryCtxRetain(uint64_t *c, int d) { contexts++; *c = 7; return 0; }
int cuDevicePrimaryCtxRelease_v2(int d) { contexts--; return 0; }
int cuCtxSetCurrent(uint64_t c) { return c == 7 ? 0 : 201; }
int cuMemGetInfo_v2(size_t *f, size_t *t) { *f = TOTAL - used; *t = TOTAL; return 0; }
int cuMemAlloc_v2(uint64_t *p, size_t n) {
  if (n == 0) return 1;
  if (used + n > TOTAL) return 2;
  size_t *block = malloc(n + 16);
  block[0] = n; used += n; allocations++;
  *p = (uint64_t)(block + 2);
  return 0;
}
int cuMemFree_v2(uint64_t p) { size_t *block = (size_t *)p - 2; used -= block[0]; allocations--; free(block); return 0; }
int cuMemHostAlloc(uint64_t *p, size_t n, uint32_t f) { *p = (uint64_t)malloc(n); allocations++; return 0; }
int cuMemFreeHost(uint64_t p) { allocations--; free((void *)p); return 0; }
static int copy(uint64_t to, uint64_t from, size_t n) { memcpy((void *)to, (void *)from, n); return 0; }
int cuMemcpyHtoDAsync_v2(uint64_t to, uint64_t from, size_t n, uint64_t s) { return copy(to, from, n); }
int cuMemcpyDtoHAsync_v2(uint64_t to, uint64_t from, size_t n, uint64_t s) { return copy(to, from, n); }
int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t n, uint64_t s) { return copy(to, from, n); }
int cuMemsetD8Async(uint64_t to, uint8_t v, size_t n, uint64_t s) { memset((void *)to, v, n); return 0; }
int cuStreamCreate(uint64_t *s, uint32_t f) { streams++; *s = 11; return 0; }
int cuStreamDestroy_v2(uint64_t s) { streams--; return s == 11 ? 0 : 400; }
int cuStreamSynchronize(uint64_t s) { return s == 11 ? 0 : 400; }
int cuStreamWaitEvent(uint64_t s, uint64_t e, uint32_t f) { return 0; }
int cuEventCreate(uint64_t *e, uint32_t f) { events++; *e = 13; return 0; }
int cuEventDestroy_v2(uint64_t e) { events--; return e == 13 ? 0 : 400; }
int cuEventRecord(uint64_t e, uint64_t s) { return e == 13 && s == 11 ? 0 : 400; }
int cuEventQuery(uint64_t e) { return 0; }
int cuEventSynchronize(uint64_t e) { return e == 13 ? 0 : 400; }
int cuEventElapsedTime(float *ms, uint64_t a, uint64_t b) { *ms = 1.5f; return 0; }
/* A module is its text: the options at its end say what it was compiled for. */
typedef struct { int headDim, isFp16, isFp8, kv, count; Function functions[32]; } Module;
int cuModuleLoadData(uint64_t *m, const char *image) {
  Module *module = calloc(1, sizeof(Module));
  const char *options = strstr(image, "--gpu-architecture"), *dim = options ? strstr(options, "-DHEAD_DIM=") : NULL;
  module->headDim = dim ? atoi(dim + 11) : 0;
  module->isFp16 = options && strstr(options, "-DELEMENT_FP16") != NULL;
  module->isFp8 = options && (strstr(options, "-DWEIGHT_FP8") != NULL || strstr(options, "-DROWS") != NULL);
  module->kv = !options ? 0 : strstr(options, "-DKV_FP8") ? 2 : strstr(options, "-DKV_INT8") ? 1 : 0;
  *m = (uint64_t)module;
  return 0;
}
int cuModuleUnload(uint64_t m) { return m ? 0 : 400; }
int cuModuleGetFunction(uint64_t *f, uint64_t m, const char *name) {
  Module *module = (Module *)m;
  int kind = strcmp(name, "axpy") ? fake_kernel(name, NULL) : -1;
  if (kind == -2) return 500;
  Function *function = &module->functions[module->count++];
  *function = (Function){ kind, module->headDim, module->isFp16, module->isFp8, module->kv };
  *f = (uint64_t)function;
  return 0;
}
int cuFuncSetAttribute(uint64_t f, int a, int v) { return v > 200000 ? 1 : 0; }
int cuFuncGetAttribute(int *v, int a, uint64_t f) { *v = a == 4 ? 32 : 0; return 0; }
static int launch(const uint32_t *grid, const uint32_t *block, uint64_t f, uint64_t stream, void **p) {
  const Function *function = (const Function *)f;
  if (stream != 11) return 400;
  if (grid[0] * grid[1] * grid[2] == 0 || block[0] * block[1] * block[2] > 1024) return 1;
  Node node = { function, { grid[0], grid[1], grid[2] } };
  int count = function->kind < 0 ? 5 : fake_parameters(function->kind);
  for (int i = 0; i < count; i++) memcpy(&node.p[i], p[i], 8);
  issue(&node);
  return 0;
}
int cuLaunchKernel(uint64_t f, uint32_t gx, uint32_t gy, uint32_t gz, uint32_t bx, uint32_t by, uint32_t bz, uint32_t shared, uint64_t s, void **p, void **extra) {
  return launch((uint32_t[]){ gx, gy, gz }, (uint32_t[]){ bx, by, bz }, f, s, p);
}
typedef struct { uint32_t grid[3], block[3], shared; uint64_t stream; const uint32_t *attributes; uint32_t count; } Config;
int cuLaunchKernelEx(const Config *c, uint64_t f, void **p, void **extra) {
  if (c->count != 1 || c->attributes[0] != 6 || c->attributes[2] != 1) return 1;
  return launch(c->grid, c->block, f, c->stream, p);
}
int cuStreamBeginCapture_v2(uint64_t s, int mode) { capturing = calloc(1, sizeof(Graph)); graphs++; return 0; }
int cuStreamEndCapture(uint64_t s, uint64_t *g) { *g = (uint64_t)capturing; capturing = NULL; return 0; }
int cuGraphInstantiateWithFlags(uint64_t *e, uint64_t g, uint64_t f) {
  Graph *from = (Graph *)g, *c = malloc(sizeof(Graph));
  *c = (Graph){ from->count, from->count, malloc(from->count * sizeof(Node) + 1) };
  memcpy(c->nodes, from->nodes, from->count * sizeof(Node));
  graphs++;
  *e = (uint64_t)c;
  return 0;
}
int cuGraphLaunch(uint64_t e, uint64_t s) { Graph *g = (Graph *)e; for (int i = 0; i < g->count; i++) fake_run(&g->nodes[i]); return 0; }
static int destroy(uint64_t g) { graphs--; free(((Graph *)g)->nodes); free((void *)g); return 0; }
int cuGraphExecDestroy(uint64_t e) { return destroy(e); }
int cuGraphDestroy(uint64_t g) { return destroy(g); }
int cuTensorMapEncodeTiled(void *map, int type, uint32_t rank, uint64_t a, void *d, void *s, void *b, void *e, int i, int w, int l, int o) { return 0; }
int cuGetErrorName(int code, const char **name) {
  switch (code) { case 1: *name = "CUDA_ERROR_INVALID_VALUE"; return 0; case 2: *name = "CUDA_ERROR_OUT_OF_MEMORY"; return 0;
    case 100: *name = "CUDA_ERROR_NO_DEVICE"; return 0; case 500: *name = "CUDA_ERROR_NOT_FOUND"; return 0; default: return 1; }
}

/* NVRTC: the cubin is the source, and then its headers; a source that holds "syntax error" does not compile. */
typedef struct { char *text; char *log; } Program;
int nvrtcVersion(int *a, int *b) { *a = 13; *b = 0; return 0; }
int nvrtcCreateProgram(uint64_t *out, const char *source, const char *name, int count, const char **headers, const char **names) {
  Program *p = calloc(1, sizeof(Program));
  p->text = calloc(1, 1 << 20);
  strcat(p->text, source);
  for (int i = 0; i < count; i++) { strcat(p->text, names[i]); strcat(p->text, headers[i]); }
  allocations++;
  *out = (uint64_t)p;
  return 0;
}
int nvrtcCompileProgram(uint64_t program, int count, const char **options) {
  Program *p = (Program *)program;
  for (int i = 0; i < count; i++) strcat(p->text, options[i]);
  p->log = strstr(p->text, "syntax error") ? "line 1: error: expected a declaration" : "";
  return *p->log ? 6 : 0;
}
int nvrtcGetProgramLogSize(uint64_t p, size_t *n) { *n = strlen(((Program *)p)->log) + 1; return 0; }
int nvrtcGetProgramLog(uint64_t p, char *log) { strcpy(log, ((Program *)p)->log); return 0; }
int nvrtcGetCUBINSize(uint64_t p, size_t *n) { *n = strlen(((Program *)p)->text) + 1; return 0; }
int nvrtcGetCUBIN(uint64_t p, char *out) { strcpy(out, ((Program *)p)->text); return 0; }
int nvrtcDestroyProgram(uint64_t *p) { free(((Program *)*p)->text); free((void *)*p); allocations--; *p = 0; return 0; }

/* cuBLASLt: column-major D = op(A) B (+ bias), op(A) transposed; bf16 in, bf16 or float out. */
typedef struct { int type; uint64_t rows, columns; int64_t leading; } Layout;
typedef struct { int transA, epilogue; const uint16_t *bias; } Operation;
int cublasLtCreate(uint64_t *h) { *h = 23; contexts++; return 0; }
int cublasLtDestroy(uint64_t h) { contexts--; return 0; }
int cublasLtMatmulDescCreate(uint64_t *o, int c, int s) { *o = (uint64_t)calloc(1, sizeof(Operation)); allocations++; return c == 68 && s == 0 ? 0 : 7; }
int cublasLtMatmulDescDestroy(uint64_t o) { free((void *)o); allocations--; return 0; }
int cublasLtMatmulDescSetAttribute(uint64_t o, int a, void *v, size_t n) {
  Operation *op = (Operation *)o;
  if (a == 3) op->transA = *(int *)v; else if (a == 7) op->epilogue = *(int *)v; else if (a == 8) op->bias = *(const uint16_t **)v;
  return 0;
}
int cublasLtMatrixLayoutCreate(uint64_t *l, int t, uint64_t r, uint64_t c, int64_t d) { Layout *p = malloc(sizeof(Layout)); *p = (Layout){ t, r, c, d }; *l = (uint64_t)p; allocations++; return 0; }
int cublasLtMatrixLayoutDestroy(uint64_t l) { free((void *)l); allocations--; return 0; }
int cublasLtMatmulPreferenceCreate(uint64_t *p) { *p = 1; allocations++; return 0; }
int cublasLtMatmulPreferenceSetAttribute(uint64_t p, int a, void *v, size_t n) { return 0; }
int cublasLtMatmulPreferenceDestroy(uint64_t p) { allocations--; return 0; }
int cublasLtMatmulAlgoGetHeuristic(uint64_t h, uint64_t o, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t p, int asked, uint8_t *results, int *returned) {
  memset(results, 0, 96 * asked);
  *(int *)(results + 72) = 15;      /* the first proposal is one that the library takes back */
  results[96] = 42;
  *returned = ((Layout *)a)->rows % 8 ? 0 : 2;
  return 0;
}
int cublasLtMatmul(uint64_t h, uint64_t o, float *alpha, uint64_t a, uint64_t la, uint64_t b, uint64_t lb, float *beta, uint64_t c, uint64_t lc, uint64_t d, uint64_t ld, uint8_t *algorithm, uint64_t w, size_t n, uint64_t s) {
  Operation *op = (Operation *)o;
  Layout *A = (Layout *)la, *B = (Layout *)lb, *D = (Layout *)ld;
  if (algorithm[0] != 42 || !op->transA || *beta != 0 || A->rows != B->rows || D->rows != A->columns || D->columns != B->columns) return 7;
  /* x, weight, bias, y; rows, columns, inner; element type, output type; scale */
  Node node = { NULL, { 0 }, { b, a, op->epilogue == 4 ? (uint64_t)op->bias : 0, d, B->columns, A->columns, A->rows, A->type, D->type, 0 } };
  memcpy(&node.p[9], alpha, 4);
  issue(&node);
  return 0;
}
