/* What the kernels of engine/cuda/kernels compute, written once more for the host, one number after the other, from
   CONTRACT.md: the engine's tables, plans and recorded runs are tested with it where there is no device. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct { int kind, headDim, isFp16, isFp8, kv; } Function;   /* kv: pages of int8 (1) or fp8 (2); 0 of 16 bits */
typedef struct { const Function *f; uint32_t grid[3]; uint64_t p[32]; } Node;
typedef uint16_t half;

enum { EMBED, RMS_NORM, ADD_NORM, SILU_MUL, ROPE_TABLE, ROPE_WRITE, SCORE, SCORE_HOPPER, PICK, ATTEND, ATTEND_HOPPER, TURN_PAGES, LINEAR, GATED, QUANTIZE, DEQUANTIZE, LARGEST, RESCALE, HEAD_PARTS, JOIN_HEADS, WIDEN, STREAM, STREAM_GATED, FP8, FP8_GATED, ATTEND_TOKEN };
static const struct { const char *name; int parameters; } kernels[] = {
  { "embed", 5 }, { "rms_norm", 5 }, { "add_norm", 8 }, { "silu_mul", 4 }, { "rope_table", 6 }, { "rope_write", 15 }, { "score", 15 }, { "score_hopper", 15 },
  { "pick", 13 }, { "attend", 23 }, { "attend_hopper", 21 }, { "turn_pages", 6 }, { "linear_few", 9 }, { "linear_few_gated", 9 }, { "quantize_rows", 5 }, { "dequantize_rows", 4 },
  { "largest_bf16", 3 }, { "rescale", 4 }, { "head_parts", 7 }, { "join_heads", 9 },
  { "widen_pages", 9 }, { "linear_stream", 12 }, { "linear_stream_gated", 11 }, { "linear_fp8", 10 }, { "linear_fp8_gated", 11 }, { "attend_token", 28 },
};
int fake_kernel(const char *name, int *unused) { for (int i = 0; i < (int)(sizeof kernels / sizeof *kernels); i++) if (!strcmp(name, kernels[i].name)) return i; return -2; }
int fake_parameters(int kind) { return kernels[kind].parameters; }

/* ---- numbers ---- */
static float word(uint32_t u) { float f; memcpy(&f, &u, 4); return f; }
static uint32_t bits(float f) { uint32_t u; memcpy(&u, &f, 4); return u; }
static float of_half(half v) {
  int e = (v >> 10) & 31, m = v & 1023;
  float size = e == 0 ? ldexpf(m, -24) : e == 31 ? (m ? NAN : INFINITY) : ldexpf(1024 + m, e - 25);
  return v & 0x8000 ? -size : size;
}
static float *half_values;
__attribute__((constructor)) static void fill_half_values(void) { half_values = malloc(65536 * 4); for (int v = 0; v < 65536; v++) half_values[v] = of_half(v); }
static float load(half v, int isFp16) { return isFp16 ? half_values[v] : word((uint32_t)v << 16); }
static half store(float f, int isFp16) {
  if (!isFp16) return isnan(f) ? 0x7fff : (bits(f) + 0x7fff + ((bits(f) >> 16) & 1)) >> 16;
  half sign = signbit(f) ? 0x8000 : 0;
  f = fabsf(f);
  if (isnan(f)) return 0x7fff;
  if (f >= 65520) return sign | 0x7c00;
  int e = f == 0 ? -14 : ilogbf(f);
  if (e < -14) e = -14;
  int units = (int)rintf(ldexpf(f, 10 - e));
  return sign | (units < 1024 ? units : ((e + 14) << 10) + units);
}
static float fp8(uint8_t v) {
  int e = (v >> 3) & 15, m = v & 7;
  float size = e == 0 ? ldexpf(m, -9) : ldexpf(8 + m, e - 10);
  return v & 0x80 ? -size : size;
}
static uint8_t to_fp8(float f) {
  int best = 0;
  for (int v = 0; v < 127; v++) if (fabsf(fp8(v) - fabsf(f)) < fabsf(fp8(best) - fabsf(f))) best = v;
  return best | (f < 0 ? 0x80 : 0);
}

/* ---- the arguments of a node ---- */
#define POINTER(type, i) ((type *)n->p[i])
#define INT(i) ((int)(int32_t)n->p[i])
static float number(uint64_t v) { return word((uint32_t)v); }
#define FP16 (n->f->isFp16)
#define D (n->f->headDim)

/* The row of a head's page: the argument `at` points to rows by page and head, the next one says how far pages are apart. */
static int row_of(const Node *n, int at, int page, int kvHead) { return POINTER(int, at)[(int64_t)page * INT(at + 1) + kvHead]; }
static int place(int token, int c) { return ((c / 64) * 64 + token) * 64 + (((c / 8) % 8) ^ (token & 7)) * 8 + c % 8; }
static int64_t statistics_at(const Node *n, int row, int logical) { return ((int64_t)row * 4 + logical) * 2 * D; }

/* ---- pages: of 16 bits, or of bytes with a scale for each token ---- */
typedef struct { const Node *n; uint8_t *at; } Page;
static int64_t row_bytes(const Node *n) { int pad = (D + 63) / 64 * 64; return n->f->kv ? 64 * pad + 256 : 64 * pad * 2; }
static Page page_of(const Node *n, uint64_t memory, int row) { return (Page){ n, (uint8_t *)memory + row * row_bytes(n) }; }
static float *scale_of(Page p, int token) { return (float *)(p.at + 64 * ((p.n->f->headDim + 63) / 64 * 64)) + token; }
static int byte_place(int token, int c) { return ((c / 64) * 64 + token) * 64 + c % 64; }
static half read_channel(Page p, int token, int c) {
  if (!p.n->f->kv) return ((half *)p.at)[place(token, c)];
  uint8_t byte = p.at[byte_place(token, c)];
  return store((p.n->f->kv == 2 ? fp8(byte) : (float)(int8_t)byte) * *scale_of(p, token), p.n->f->isFp16);
}
static void write_token(Page p, int token, const float *x) {
  const Node *n = p.n;
  if (!n->f->kv) { for (int c = 0; c < D; c++) ((half *)p.at)[place(token, c)] = store(x[c], FP16); return; }
  float most = 0, largest = n->f->kv == 2 ? 448 : 127;
  for (int c = 0; c < D; c++) most = fmaxf(most, fabsf(x[c]));
  float scale = most == 0 ? 1 : most / largest;
  *scale_of(p, token) = scale;
  for (int c = 0; c < D; c++) {
    float number = fminf(fmaxf(x[c] / scale, -largest), largest);
    p.at[byte_place(token, c)] = n->f->kv == 2 ? to_fp8(number) : (uint8_t)(int8_t)rintf(number);
  }
  for (int c = D; c < (D + 63) / 64 * 64; c++) p.at[byte_place(token, c)] = 0;
}

static void norm_row(const Node *n, const float *x, const half *weight, half *out, int width, float eps) {
  double squares = 0;
  for (int i = 0; i < width; i++) squares += (double)x[i] * x[i];
  float scale = 1 / sqrt(squares / width + eps);
  for (int i = 0; i < width; i++) out[i] = store(x[i] * scale * load(weight[i], FP16), FP16);
}

static void embed(const Node *n) {
  int hidden = INT(3);
  for (uint32_t row = 0; row < n->grid[0]; row++) {
    int token = POINTER(int, 1)[row];
    for (int i = 0; i < hidden; i++) POINTER(float, 2)[row * hidden + i] = token < 0 ? 0 : load(POINTER(half, 0)[(int64_t)token * hidden + i], FP16) * number(n->p[4]);
  }
}

static void add_norm(const Node *n) {
  int hidden = INT(5);
  const int *ids = POINTER(int, 4);
  float *row = malloc(hidden * 4);
  for (uint32_t r = 0; r < n->grid[0]; r++) {
    int from = ids ? ids[r] : (int)r;
    half *out = POINTER(half, 3) + (int64_t)r * hidden;
    if (from < 0) { memset(out, 0, hidden * 2); continue; }
    float *x = POINTER(float, 0) + (int64_t)from * hidden;
    for (int i = 0; i < hidden; i++) row[i] = x[i] + load(POINTER(half, 1)[(int64_t)from * hidden + i], FP16) * number(n->p[7]);
    if (!ids) memcpy(x, row, hidden * 4);
    norm_row(n, row, POINTER(half, 2), out, hidden, number(n->p[6]));
  }
  free(row);
}

static float gated(float gate, float up) { return gate / (1 + expf(-gate)) * up; }

static void rope_table(const Node *n) {
  int pairs = INT(4);
  for (uint32_t row = 0; row < n->grid[0]; row++) for (int i = 0; i < pairs; i++) {
    double angle = POINTER(double, 0)[(POINTER(int, 1) ? POINTER(int, 1)[row] : 0) * pairs + i] * POINTER(int, 2)[row];
    POINTER(float, 3)[(row * pairs + i) * 2] = cos(angle) * number(n->p[5]);
    POINTER(float, 3)[(row * pairs + i) * 2 + 1] = sin(angle) * number(n->p[5]);
  }
}

/* A head of one row: norm over its channels, then the turn. */
static void turned(const Node *n, const half *head, const half *weight, const float *turn, float *out) {
  double squares = 0;
  for (int c = 0; c < D; c++) { out[c] = load(head[c], FP16); squares += (double)out[c] * out[c]; }
  if (weight) for (int c = 0; c < D; c++) out[c] *= (float)(1 / sqrt(squares / D + number(n->p[5]))) * load(weight[c], FP16);
  for (int c = 0; c < D / 2; c++) {
    float low = out[c], high = out[c + D / 2];
    out[c] = low * turn[2 * c] - high * turn[2 * c + 1];
    out[c + D / 2] = high * turn[2 * c] + low * turn[2 * c + 1];
  }
}

static void rope_write(const Node *n) {
  int stride = INT(1), kvHeads = INT(13), group = INT(14), heads = kvHeads * group;
  float out[256];
  for (uint32_t i = 0; i < n->grid[0]; i++) for (int h = 0; h < kvHeads; h++) {
    const int *run = POINTER(int, 7) + 4 * i;
    if (run[1] == 0) continue;
    int row = row_of(n, 11, run[2] / 64, h), slot = run[2] % 64, logical = slot / 16;
    Page keys = page_of(n, n->p[8], row), values = page_of(n, n->p[9], row);
    if (slot == 0) for (int t = run[3]; t < 64; t++) { if (n->f->kv) *scale_of(values, t) = 0; else for (int c = 0; c < D; c++) ((half *)values.at)[place(t, c)] = 0; }
    for (int t = 0; t < run[1]; t++) {
      half *qkv = POINTER(half, 0) + (int64_t)(run[0] + t) * stride;
      const float *turn = POINTER(float, 6) + (int64_t)(run[0] + t) * D;
      for (int g = 0; g < group; g++) {
        half *q = qkv + (h * group + g) * D;
        turned(n, q, POINTER(half, 3), turn, out);
        for (int c = 0; c < D; c++) q[c] = store(out[c], FP16);
      }
      turned(n, qkv + (heads + h) * D, POINTER(half, 4), turn, out);
      write_token(keys, slot + t, out);
      for (int c = 0; c < D; c++) out[c] = load(qkv[(heads + kvHeads + h) * D + c], FP16);
      write_token(values, slot + t, out);
    }
    half *statistics = POINTER(half, 10) + statistics_at(n, row, logical);
    for (int c = 0; c < D; c++) {
      float least = INFINITY, most = -INFINITY;
      for (int t = logical * 16; t < slot + run[1]; t++) { float k = load(read_channel(keys, t, c), FP16); least = fminf(least, k); most = fmaxf(most, k); }
      statistics[c] = store(least, FP16);
      statistics[D + c] = store(most, FP16);
    }
  }
}

/* ---- chunks and lists ---- */
typedef struct { int firstRow, tokens, start, ownPages, slot, fresh, ask, firstList, classOf, perQueryHead; } Chunk;
typedef struct { int fixed, numFixed, candidates, numCandidates, pick, tokens, perQueryHead; } List;
static Chunk chunk_of(const int *chunks, int i) { Chunk c; memcpy(&c, chunks + 16 * i, sizeof c); return c; }
static List list_of(const int *lists, const uint8_t *classOf, Chunk c, int kvHead) { List l; memcpy(&l, lists + 8 * (c.firstList + classOf[c.classOf + kvHead]), sizeof l); return l; }

static void score(const Node *n) {
  int stride = INT(1), maxCandidates = INT(11), layer = INT(12), kvHeads = INT(13), group = INT(14), heads = kvHeads * group;
  for (uint32_t unit = 0; unit < n->grid[2]; unit++) for (int h = 0; h < kvHeads; h++) {
    int index = POINTER(int, 5)[unit];
    if (index < 0) continue;
    Chunk chunk = chunk_of(POINTER(int, 6), index);
    List list = list_of(POINTER(int, 7), POINTER(uint8_t, 9), chunk, layer * kvHeads + h);
    if (!chunk.fresh || list.pick == 0 || list.pick == list.numCandidates) continue;
    for (int candidate = 0; candidate < list.numCandidates; candidate++) for (int g = 0; g < group; g++) {
      float *to = POINTER(float, 10) + ((int64_t)unit * heads + h * group + (list.perQueryHead ? g : 0)) * maxCandidates + candidate;
      float best = g == 0 || list.perQueryHead ? -INFINITY : *to;
      for (int logical = 0; logical < 4; logical++) for (int t = 0; t < chunk.ask; t++) {
        const half *s = POINTER(half, 2) + statistics_at(n, row_of(n, 3, POINTER(int, 8)[list.candidates + candidate], h), logical);
        const half *q = POINTER(half, 0) + (int64_t)(chunk.firstRow + t) * stride + (h * group + g) * D;
        float sum = 0;
        for (int c = 0; c < D; c++) { float v = load(q[c], FP16); sum += fmaxf(v * load(s[c], FP16), v * load(s[D + c], FP16)); }
        best = fmaxf(best, sum);
      }
      *to = best;
    }
  }
}

static void pick(const Node *n) {
  int maxCandidates = INT(1), maxPick = INT(8), layer = INT(9), layers = INT(10), kvHeads = INT(11), group = INT(12), heads = kvHeads * group;
  for (uint32_t unit = 0; unit < n->grid[1]; unit++) for (int head = 0; head < heads; head++) {
    int index = POINTER(int, 2)[unit];
    if (index < 0) continue;
    Chunk chunk = chunk_of(POINTER(int, 3), index);
    List list = list_of(POINTER(int, 4), POINTER(uint8_t, 6), chunk, layer * kvHeads + head / group);
    if (!chunk.fresh || list.pick == 0 || (!list.perQueryHead && head % group)) continue;
    const float *scores = POINTER(float, 0) + ((int64_t)unit * heads + head) * maxCandidates;
    int *to = POINTER(int, 7) + (((int64_t)chunk.slot * layers + layer) * heads + head) * maxPick, count = 0;
    for (int i = 0; i < list.numCandidates; i++) {
      int better = 0;
      if (list.pick < list.numCandidates) for (int j = 0; j < list.numCandidates; j++) better += scores[j] > scores[i] || (scores[j] == scores[i] && j < i);
      if (better < list.pick) to[count++] = POINTER(int, 5)[list.candidates + i];
    }
  }
}

typedef struct { const Node *n; const float *q; float scale; double highest, total, sums[256]; } Mix;
static void read_token(Mix *mix, Page keys, Page values, int slot) {
  const Node *n = mix->n;
  double s = 0;
  for (int c = 0; c < D; c++) s += mix->q[c] * load(read_channel(keys, slot, c), FP16);
  s *= mix->scale;
  double rescale = s > mix->highest ? exp(mix->highest - s) : 1, weight = s > mix->highest ? 1 : exp(s - mix->highest);
  if (s > mix->highest) mix->highest = s;
  mix->total = mix->total * rescale + weight;
  for (int c = 0; c < D; c++) mix->sums[c] = mix->sums[c] * rescale + weight * load(read_channel(values, slot, c), FP16);
}

/* attend: 64 rows a unit and members; attend_hopper: 128 rows, two parameters fewer. Rows of pages: argument 5. */
static void attend(const Node *n, int unitRows, int shift, int numUnits) {
  int stride = INT(1), maxPick = INT(14), layer = INT(17 - shift), layers = INT(18 - shift), kvHeads = INT(19 - shift), group = INT(20 - shift), window = INT(21 - shift);
  int heads = kvHeads * group;
  for (int u = 0; u < numUnits; u++) for (int h = 0; h < kvHeads; h++) {
    const int *unit = POINTER(int, 7) + 4 * u;
    if (unit[0] < 0) continue;
    Chunk chunk = chunk_of(POINTER(int, 8), unit[0]);
    List list = list_of(POINTER(int, 9), POINTER(uint8_t, 12), chunk, layer * kvHeads + h);
    if (!list.perQueryHead && unit[2] > 0) continue;
    for (int r = unit[1] * unitRows; r < (unit[1] + 1) * unitRows && r < chunk.tokens * group; r++) {
      int token = r / group, member = r % group, head = h * group + member;
      if (list.perQueryHead && member != unit[2]) continue;
      const half *q = POINTER(half, 0) + (int64_t)(chunk.firstRow + token) * stride + head * D;
      float query[256];
      for (int c = 0; c < D; c++) query[c] = load(q[c], FP16);
      Mix mix = { n, query, number(n->p[22 - shift]), -INFINITY };
      int oldest = window > 0 ? chunk.start + token - window + 1 : -1;
      const int *picked = POINTER(int, 13) + (((int64_t)chunk.slot * layers + layer) * heads + (list.perQueryHead ? head : h * group)) * maxPick;
      for (int i = 0; i < list.pick + list.numFixed; i++) {
        int entry = list.fixed + i - list.pick, row = row_of(n, 5, i < list.pick ? picked[i] : POINTER(int, 10)[entry], h);
        for (int t = 0; t < 64 && i * 64 + t < list.tokens; t++) {
          if (window > 0 && POINTER(int, 11)[entry] + t < oldest) continue;
          read_token(&mix, page_of(n, n->p[3], row), page_of(n, n->p[4], row), t);
        }
      }
      for (int position = chunk.start; position <= chunk.start + token; position++) {
        int row = row_of(n, 5, POINTER(int, 10)[chunk.ownPages + position / 64 - chunk.start / 64], h);
        if (position >= oldest) read_token(&mix, page_of(n, n->p[3], row), page_of(n, n->p[4], row), position % 64);
      }
      half *out = POINTER(half, 2) + ((int64_t)(chunk.firstRow + token) * heads + head) * D;
      for (int c = 0; c < D; c++) out[c] = store(mix.sums[c] / mix.total, FP16);
    }
  }
}

/* As rope_write and attend: a run of one token for each chunk of a unit. */
static void attend_token(const Node *n) {
  int units = n->grid[2], *runs = malloc(units * 16);
  Node of = { n->f, { units, n->grid[1] }, { n->p[0], n->p[1], 0, n->p[23], n->p[24], n->p[25], n->p[26], (uint64_t)runs, n->p[3], n->p[4], n->p[27], n->p[5], n->p[6], n->p[19], n->p[20] } };
  for (int u = 0; u < units; u++) {
    int index = POINTER(int, 7)[4 * u], *run = runs + 4 * u;
    Chunk chunk = chunk_of(POINTER(int, 8), index < 0 ? 0 : index);
    run[0] = chunk.firstRow; run[1] = index >= 0; run[2] = POINTER(int, 10)[chunk.ownPages] * 64 + chunk.start % 64; run[3] = chunk.start % 64 + 1;
  }
  rope_write(&of);
  attend(n, 64, 0, units);
  free(runs);
}

static void turn_pages(const Node *n) {
  int kvHeads = INT(5);
  for (uint32_t m = 0; m < n->grid[0]; m++) for (uint32_t layer = 0; layer < n->grid[2]; layer++) for (int h = 0; h < kvHeads; h++) {
    const int *move = POINTER(int, 3) + 4 * m;
    if (move[1] < 0) continue;
    const float *turn = POINTER(float, 4) + (int64_t)move[2] * D;
    int rows[2];
    for (int end = 0; end < 2; end++) rows[end] = POINTER(int, 2)[((int64_t)move[end] * n->grid[2] + layer) * kvHeads + h];
    Page from = page_of(n, n->p[0], rows[0]), to = page_of(n, n->p[0], rows[1]);
    memcpy(page_of(n, n->p[1], rows[1]).at, page_of(n, n->p[1], rows[0]).at, row_bytes(n));
    for (int t = 0; t < 64; t++) {
      float out[256];
      for (int c = 0; c < D / 2; c++) {
        float low = load(read_channel(from, t, c), FP16), high = load(read_channel(from, t, c + D / 2), FP16);
        out[c] = low * turn[2 * c] - high * turn[2 * c + 1];
        out[c + D / 2] = high * turn[2 * c] + low * turn[2 * c + 1];
      }
      write_token(to, t, out);
    }
  }
}

/* Grid: entries, KV heads. */
static void widen_pages(const Node *n) {
  int kvHeads = INT(8);
  for (uint32_t i = 0; i < n->grid[0]; i++) for (int h = 0; h < kvHeads; h++) for (int which = 0; which < 2; which++) {
    int page = POINTER(int, 4)[i], row = i * kvHeads + h;
    Page from = page_of(n, n->p[which], row_of(n, 2, page, h));
    half *to = POINTER(half, 5 + which) + (int64_t)row * 64 * ((D + 63) / 64 * 64);
    POINTER(int, 7)[(int64_t)page * kvHeads + h] = row;
    for (int t = 0; t < 64; t++) for (int c = 0; c < D; c++) to[place(t, c)] = read_channel(from, t, c);
  }
}

static float product(const Node *n, const half *x, int output, int inputs) {
  double sum = 0;
  for (int i = 0; i < inputs; i++) {
    int64_t at = (int64_t)output * inputs + i;
    sum += load(x[i], FP16) * (n->f->isFp8 ? fp8(POINTER(uint8_t, 1)[at]) : load(POINTER(half, 1)[at], FP16));
  }
  return n->f->isFp8 ? sum * POINTER(float, 2)[output] : sum;
}

static void linear_few(const Node *n) {
  int rows = INT(5), inputs = INT(6), outputs = INT(7);
  for (int r = 0; r < rows; r++) for (int o = 0; o < outputs; o++) {
    float y = product(n, POINTER(half, 0) + (int64_t)r * inputs, o, inputs) * number(n->p[8]);
    if (POINTER(float, 4)) POINTER(float, 4)[(int64_t)r * outputs + o] = y; else POINTER(half, 3)[(int64_t)r * outputs + o] = store(y, FP16);
  }
}

static void linear_few_gated(const Node *n) {
  int rows = INT(4), inputs = INT(5), inner = INT(6);
  for (int r = 0; r < rows; r++) for (int o = 0; o < inner; o++) {
    const half *x = POINTER(half, 0) + (int64_t)r * inputs;
    POINTER(half, 3)[(int64_t)r * inner + o] = store(gated(product(n, x, o, inputs) * number(n->p[7]), product(n, x, inner + o, inputs) * number(n->p[7])) * number(n->p[8]), FP16);
  }
}

/* Rows of elements, or of the residual that are normed first. [rows, inputs] */
static half *stream_inputs(const Node *n, int rows, int inputs, float eps) {
  half *x = malloc((int64_t)rows * inputs * 2);
  if (!n->p[1]) memcpy(x, POINTER(half, 0), (int64_t)rows * inputs * 2);
  else for (int r = 0; r < rows; r++) norm_row(n, POINTER(float, 0) + (int64_t)r * inputs, POINTER(half, 1), x + (int64_t)r * inputs, inputs, eps);
  return x;
}

static float stream_product(const Node *n, const half *x, int output, int inputs) {
  Node of = { n->f, { 0 }, { 0, n->p[2], n->p[3] } };
  return product(&of, x, output, inputs);
}

static void linear_stream(const Node *n) {
  int adds = INT(6), rows = INT(7), inputs = INT(8), outputs = INT(9);
  half *x = stream_inputs(n, rows, inputs, number(n->p[11]));
  for (int r = 0; r < rows; r++) for (int o = 0; o < outputs; o++) {
    float y = stream_product(n, x + (int64_t)r * inputs, o, inputs) * number(n->p[10]);
    float *sum = POINTER(float, 5) + (int64_t)r * outputs + o;
    if (!n->p[5]) POINTER(half, 4)[(int64_t)r * outputs + o] = store(y, FP16); else *sum = adds ? *sum + y : y;
  }
  free(x);
}

static void linear_stream_gated(const Node *n) {
  int rows = INT(5), inputs = INT(6), inner = INT(7);
  half *x = stream_inputs(n, rows, inputs, number(n->p[10]));
  for (int r = 0; r < rows; r++) for (int o = 0; o < inner; o++) {
    const half *row = x + (int64_t)r * inputs;
    float gate = stream_product(n, row, o, inputs) * number(n->p[8]), up = stream_product(n, row, inner + o, inputs) * number(n->p[8]);
    POINTER(half, 4)[(int64_t)r * inner + o] = store(gated(gate, up) * number(n->p[9]), FP16);
  }
  free(x);
}

static void linear_fp8(const Node *n) {
  int rows = INT(6), inputs = INT(7), outputs = INT(8);
  for (int r = 0; r < rows; r++) for (int o = 0; o < outputs; o++) POINTER(half, 3)[(int64_t)r * outputs + o] = store(product(n, POINTER(half, 0) + (int64_t)r * inputs, o, inputs) * number(n->p[9]), FP16);
}

static void linear_fp8_gated(const Node *n) {
  int rows = INT(6), inputs = INT(7), inner = INT(8);
  for (int r = 0; r < rows; r++) for (int o = 0; o < inner; o++) {
    const half *x = POINTER(half, 0) + (int64_t)r * inputs;
    POINTER(half, 3)[(int64_t)r * inner + o] = store(gated(product(n, x, o, inputs) * number(n->p[9]), product(n, x, inner + o, inputs) * number(n->p[9])) * number(n->p[10]), FP16);
  }
}

static void quantize(const Node *n, int back) {
  int inputs = INT(3);
  for (uint32_t r = 0; r < n->grid[0]; r++) {
    int64_t at = (int64_t)r * inputs;
    if (back) { for (int i = 0; i < inputs; i++) POINTER(half, 2)[at + i] = store(fp8(POINTER(uint8_t, 0)[at + i]) * POINTER(float, 1)[r], FP16); continue; }
    float most = 0;
    for (int i = 0; i < inputs; i++) most = fmaxf(most, fabsf(load(POINTER(half, 0)[at + i], FP16)));
    float scale = most > 0 ? most / 448 : 1;
    POINTER(float, 2)[r] = scale * number(n->p[4]);
    for (int i = 0; i < inputs; i++) POINTER(uint8_t, 1)[at + i] = to_fp8(load(POINTER(half, 0)[at + i], FP16) / scale);
  }
}

/* ---- heads of rows of logits ---- */
typedef struct { float logit; int token; } Entry;
static int by_logit(const void *a, const void *b) {
  const Entry *x = a, *y = b;
  return x->logit > y->logit ? -1 : x->logit < y->logit ? 1 : x->token - y->token;
}
static void head_parts(const Node *n) {
  int stride = INT(1), vocab = INT(2), parts = n->grid[0];
  Entry *entries = malloc(8192 * sizeof(Entry));
  for (uint32_t row = 0; row < n->grid[1]; row++) for (int part = 0; part < parts; part++) {
    int count = vocab - part * 8192 < 8192 ? vocab - part * 8192 : 8192, sound = 1;
    for (int i = 0; i < count; i++) {
      entries[i] = (Entry){ POINTER(float, 0)[(int64_t)row * stride + part * 8192 + i], part * 8192 + i };
      if (isnan(entries[i].logit) || entries[i].logit == INFINITY) sound = 0;
    }
    qsort(entries, count, sizeof(Entry), by_logit);
    int64_t at = (int64_t)row * parts + part;
    float inverse = POINTER(float, 3)[row], rest = 0, restAtTemperature = 0;
    for (int i = 0; i < 256; i++) {
      POINTER(int, 4)[at * 256 + i] = i < count ? entries[i].token : -1;
      POINTER(float, 5)[at * 256 + i] = i < count ? entries[i].logit : 0;
    }
    for (int i = 256; i < count; i++) { rest += expf(entries[i].logit - entries[0].logit); restAtTemperature += expf((entries[i].logit - entries[0].logit) * inverse); }
    float *sums = POINTER(float, 6) + at * 4;
    sums[0] = entries[0].logit; sums[1] = rest; sums[2] = restAtTemperature; sums[3] = sound;
  }
  free(entries);
}
static void join_heads(const Node *n) {
  int parts = INT(4);
  Entry *entries = malloc(parts * 256 * sizeof(Entry));
  for (uint32_t row = 0; row < n->grid[0]; row++) {
    int count = 0, sound = 1, target = POINTER(int, 7)[row], *head = POINTER(int, 8) + row * 516;
    for (int i = 0; i < parts * 256; i++) {
      int64_t at = (int64_t)row * parts * 256 + i;
      if (POINTER(int, 0)[at] >= 0) entries[count++] = (Entry){ POINTER(float, 1)[at], POINTER(int, 0)[at] };
    }
    qsort(entries, count, sizeof(Entry), by_logit);
    float inverse = POINTER(float, 3)[row], most = entries[0].logit, rest = 0, restAtTemperature = 0;
    for (int i = 256; i < count; i++) { rest += expf(entries[i].logit - most); restAtTemperature += expf((entries[i].logit - most) * inverse); }
    for (int part = 0; part < parts; part++) {
      const float *sums = POINTER(float, 2) + ((int64_t)row * parts + part) * 4;
      if (sums[3] == 0) sound = 0;
      if (sums[1] > 0) { rest += sums[1] * expf(sums[0] - most); restAtTemperature += sums[2] * expf((sums[0] - most) * inverse); }
    }
    for (int i = 0; i < 256; i++) { head[i] = i < count ? entries[i].token : -1; head[256 + i] = bits(i < count ? entries[i].logit : -INFINITY); }
    head[512] = bits(rest); head[513] = bits(restAtTemperature); head[514] = sound && most > -INFINITY;
    head[515] = bits(target < 0 ? 0 : POINTER(float, 5)[(int64_t)row * INT(6) + target]);
  }
  free(entries);
}

/* A node without a function is a product of cuBLASLt. */
static void multiply(const Node *n) {
  int rows = INT(4), columns = INT(5), inner = INT(6), isFp16 = INT(7) == 2;
  for (int r = 0; r < rows; r++) for (int o = 0; o < columns; o++) {
    float sum = 0;
    for (int i = 0; i < inner; i++) sum += load(POINTER(half, 0)[(int64_t)r * inner + i], isFp16) * load(POINTER(half, 1)[(int64_t)o * inner + i], isFp16);
    sum = sum * number(n->p[9]) + (n->p[2] ? load(POINTER(half, 2)[o], isFp16) : 0);
    if (INT(8) == 0) POINTER(float, 3)[(int64_t)r * columns + o] = sum; else POINTER(half, 3)[(int64_t)r * columns + o] = store(sum, isFp16);
  }
}

void fake_run(const Node *n) {
  if (!n->f) { multiply(n); return; }
  switch (n->f->kind) {
    case -1: for (int i = 0; i < INT(3); i++) POINTER(float, 0)[(int64_t)n->p[4] + i] += number(n->p[2]) * POINTER(float, 1)[i]; break;
    case EMBED: embed(n); break;
    case RMS_NORM: for (uint32_t r = 0; r < n->grid[0]; r++) norm_row(n, POINTER(float, 0) + (int64_t)r * INT(3), POINTER(half, 1), POINTER(half, 2) + (int64_t)r * INT(3), INT(3), number(n->p[4])); break;
    case ADD_NORM: add_norm(n); break;
    case SILU_MUL: for (uint32_t r = 0; r < n->grid[0]; r++) for (int i = 0; i < INT(2); i++) { const half *g = POINTER(half, 0) + (int64_t)r * 2 * INT(2); POINTER(half, 1)[(int64_t)r * INT(2) + i] = store(gated(load(g[i], FP16), load(g[INT(2) + i], FP16)) * number(n->p[3]), FP16); } break;
    case ROPE_TABLE: rope_table(n); break;
    case ROPE_WRITE: rope_write(n); break;
    case SCORE: case SCORE_HOPPER: score(n); break;
    case PICK: pick(n); break;
    case ATTEND: attend(n, 64, 0, n->grid[2]); break;
    case ATTEND_HOPPER: attend(n, 128, 2, n->grid[0]); break;
    case ATTEND_TOKEN: attend_token(n); break;
    case TURN_PAGES: turn_pages(n); break;
    case LINEAR: linear_few(n); break;
    case GATED: linear_few_gated(n); break;
    case QUANTIZE: quantize(n, 0); break;
    case DEQUANTIZE: quantize(n, 1); break;
    case LARGEST: for (int64_t i = 0; i < (int64_t)n->p[2]; i++) { uint32_t size = POINTER(half, 0)[i] & 0x7fff; if (size > *POINTER(uint32_t, 1)) *POINTER(uint32_t, 1) = size; } break;
    case RESCALE: for (int64_t i = 0; i < (int64_t)n->p[1]; i++) { half *w = POINTER(half, 0) + i; *w = store(load(*w, INT(2) ? 0 : FP16) * number(n->p[3]), FP16); } break;
    case HEAD_PARTS: head_parts(n); break;
    case JOIN_HEADS: join_heads(n); break;
    case WIDEN: widen_pages(n); break;
    case FP8: linear_fp8(n); break;
    case FP8_GATED: linear_fp8_gated(n); break;
    case STREAM: linear_stream(n); break;
    case STREAM_GATED: linear_stream_gated(n); break;
  }
}
