/* The affine map of diffeo.scalars.affines, its gradient and its inverse: y = x exp(s) + raw[1], where s is raw[0] kept
   within +-limit by tanh (bent), or left alone up to there.

   x [m], raw [2, m], both contiguous. A gradient is computed from x and raw alone. */

#define linear NAMED(linear)
#define linear_of NAMED(linear_of)

INLINE void linear_of(const Affine *a, const REAL *x, const REAL *raw, const REAL *shift, const REAL *gy, const REAL *gl,
                      REAL *moved, REAL *slope, REAL *g_raw, REAL *g_shift) {
    V inside, bend, log_scale, wide = cut(load(x), (REAL)LARGEST, &inside), r = load(raw), t = load(shift);
    if (a->bent) {
        V share = hyperbolic(r / (REAL)a->limit, &bend);
        log_scale = share * (REAL)a->limit;
    } else {
        log_scale = clipped(r, (REAL)a->limit, &bend);
    }
    if (a->what >= INVERSE) log_scale = -log_scale;
    V base, part = exponential(log_scale, &base), scale = base + base * part;
    if (!g_raw) {
        store(moved, a->what == INVERSE ? (wide - t) * scale : wide * scale + t), store(slope, log_scale);
        return;
    }
    V g = gy ? load(gy) : all(0), gs = gl ? load(gl) : all(0), inner = g * scale;
    V by_scale = a->what == INVERSE_BACKWARD ? -(gs + g * (wide - t) * scale) : gs + g * wide * scale;
    store(moved, inner * inside), store(g_raw, by_scale * bend);
    store(g_shift, a->what == INVERSE_BACKWARD ? -inner : g);
}

static void linear(const Affine *a) {
    const REAL *x = a->x, *raw = a->raw, *gy = a->g_moved, *gl = a->g_slope;
    REAL *moved = a->moved, *slope = a->slope, *g_raw = a->g_raw;
    const int64_t m = a->m;
    int64_t i = 0;
    for (; i + LANES <= m; i += LANES)
        linear_of(a, x + i, raw + i, raw + m + i, gy ? gy + i : 0, gl ? gl + i : 0, moved + i, slope + i,
                  g_raw ? g_raw + i : 0, g_raw + m + i);
    if (i == m) return;
    REAL in[5][LANES], out[4][LANES]; /* fewer than LANES, by way of a full vector */
    const size_t size = sizeof(REAL) * (m - i);
    memset(in, 0, sizeof in);
    memcpy(in[0], x + i, size), memcpy(in[1], raw + i, size), memcpy(in[2], raw + m + i, size);
    if (gy) memcpy(in[3], gy + i, size);
    if (gl) memcpy(in[4], gl + i, size);
    linear_of(a, in[0], in[1], in[2], in[3], in[4], out[0], out[1], g_raw ? out[2] : 0, out[3]);
    memcpy(moved + i, out[0], size);
    if (!g_raw) memcpy(slope + i, out[1], size);
    if (g_raw) memcpy(g_raw + i, out[2], size), memcpy(g_raw + m + i, out[3], size);
}
