/* The rational-quadratic spline of diffeo.scalars.rational, its gradient and its inverse.

   Every number is moved by itself: x [m], raw [width, m], both contiguous, width = 3 bins - 1 (the identity outside
   [-bound, bound]) or 3 bins (circular: x lies within). A gradient is computed from x and raw alone. */

#define Bin NAMED(Bin)
#define Curve NAMED(Curve)
#define softened NAMED(softened)
#define locate NAMED(locate)
#define curve NAMED(curve)
#define place_on NAMED(place_on)
#define found NAMED(found)
#define steepness NAMED(steepness)
#define pull_back NAMED(pull_back)
#define spread_out NAMED(spread_out)
#define vector NAMED(vector)
#define rest NAMED(rest)
#define moves NAMED(moves)
#define run NAMED(run)

/* exp(l tanh(raw / l)), l = LOG_STEEPEST, and its logarithm's derivative with respect to raw */
INLINE V steepness(V raw, V *bent) {
    V scale, z = (V)((U)raw | (U)-all(0)) * (REAL)(2 / LOG_STEEPEST); /* -2 |raw| / l */
    V p = exponential(z, &scale), e = scale * p + (scale - (REAL)1); /* exp(-2 |raw| / l) - 1 */
    V share = (REAL)1 / (e + (REAL)2);
    *bent = (e + (REAL)1) * share * share * (REAL)4;
    V size = e * (REAL)LOG_STEEPEST / (e + (REAL)2); /* -l tanh(|raw| / l) */
    p = exponential(size, &scale);
    V d = scale + scale * p;
    return pick((U)(raw < all(0)), d, (REAL)1 / d);
}

typedef struct {
    V x0, x1, y0, y1, r0, r1, place; /* the corners, the raw slopes, and the bin's number */
    V sum[2];                        /* share of bin k: e[k] / sum, e as `locate` leaves it */
} Bin;

/* e[k] = exp(raw[k] - the largest); their sum */
INLINE V softened(const IO *raw, int64_t stride, int bins, V *e) {
    V most = load(raw), sum = all(0);
    for (int k = 1; k < bins; k++) {
        V r = load(raw + k * stride);
        most = pick((U)(r > most), r, most);
    }
    for (int k = 0; k < bins; k++) {
        V scale, p = exponential(load(raw + k * stride) - most, &scale);
        e[k] = scale + scale * p;
        sum += e[k];
    }
    return sum;
}

/* The bin that holds `at`, among the x knots (by = 0) or the y knots (by = 1). */
INLINE Bin locate(V at, int by, const IO *raw, int64_t stride, const Job *job, V *e) {
    const int bins = job->bins;
    const REAL bound = (REAL)job->bound, least = (REAL)(2 * job->bound * SMALLEST_BIN);
    const REAL scale = (REAL)(2 * job->bound * (1 - bins * SMALLEST_BIN));
    const IO *slopes = raw + 2 * bins * stride;
    Bin b;
    b.sum[0] = softened(raw, stride, bins, e);
    b.sum[1] = softened(raw + bins * stride, stride, bins, e + bins);
    V fx = scale / b.sum[0], fy = scale / b.sum[1], low_x = all(-(double)bound), low_y = low_x;
    V low_r = job->circular ? load(slopes) : all(0);
    b.x0 = b.y0 = low_x, b.r0 = low_r, b.place = all(0);
    for (int k = 0; k < bins; k++) {
        int last = k == bins - 1;
        V high_x = last ? all(bound) : low_x + (fx * e[k] + least);
        V high_y = last ? all(bound) : low_y + (fy * e[bins + k] + least);
        V high_r = !last ? load(slopes + (k + job->circular) * stride) : job->circular ? load(slopes) : all(0);
        if (k == 0) {
            b.x1 = high_x, b.y1 = high_y, b.r1 = high_r;
        } else {
            U in = (U)(at >= (by ? low_y : low_x));
            b.x0 = pick(in, low_x, b.x0), b.y0 = pick(in, low_y, b.y0), b.r0 = pick(in, low_r, b.r0);
            b.x1 = pick(in, high_x, b.x1), b.y1 = pick(in, high_y, b.y1), b.r1 = pick(in, high_r, b.r1);
            b.place = pick(in, all(k), b.place);
        }
        low_x = high_x, low_y = high_y, low_r = high_r;
    }
    return b;
}

typedef struct {
    V w, h, s, d0, d1, bent0, bent1; /* of the bin: sizes, mean slope, end slopes */
    V t, u, over, climb, share;      /* of a place in it: 1 / denominator, numerator of the slope, share of h reached */
} Curve;

INLINE void curve(Curve *c) {
    V tu = c->t * c->u, tt = c->t * c->t, uu = c->u * c->u;
    c->over = (REAL)1 / (c->s * (tt + uu) + (c->d0 + c->d1) * tu);
    c->climb = c->d1 * tt + (REAL)2 * c->s * tu + c->d0 * uu;
    c->share = (c->s * tt + c->d0 * tu) * c->over;
}

/* The t in [0, 1] at which the curve reaches `share` of the bin's height. */
INLINE V found(V share, V s, V d0, V d1) {
    V zero = all(0), one = all(1), sum = d0 + d1;
    V bend = share * (sum - (REAL)2 * s);
    V a = s - d0 + bend, b = d0 - bend, c = s * share;
    V under = b * b + (REAL)4 * a * c;
    V spread = root_of(pick((U)(under < zero), zero, under));
    U up = (U)(b >= zero);
    V t = pick(up, (REAL)2 * c, spread - b) / pick(up, b + spread, (REAL)2 * a);
    t = pick((U)(t < zero), zero, t), t = pick((U)(t > one), one, t);
    V low = zero, high = one;
    for (int i = 0; i <= STEPS; i++) {
        V u = one - t, tu = t * u, tt = t * t, uu = u * u;
        V below = s * (tt + uu) + sum * tu, climb = d1 * tt + (REAL)2 * s * tu + d0 * uu;
        V ahead = s * tt + d0 * tu - share * below;
        V step = t - ahead * below / (s * climb);
        if (i == STEPS) {
            t = pick((U)(step < zero), zero, pick((U)(step > one), one, step));
            break;
        }
        low = pick((U)(ahead <= zero), t, low), high = pick((U)(ahead >= zero), t, high);
        t = pick((U)(step >= low) & (U)(step <= high), step, (low + high) * (REAL)0.5);
    }
    return t;
}

/* The curve at a number x of [-bound, bound], or at the one that is sent to y. */
INLINE Curve place_on(V at, const Bin *b, int inverse) {
    Curve c;
    c.w = b->x1 - b->x0, c.h = b->y1 - b->y0;
    V over = (REAL)1 / c.w;
    c.s = c.h * over;
    c.d0 = steepness(b->r0, &c.bent0), c.d1 = steepness(b->r1, &c.bent1);
    if (inverse) {
        c.t = found((at - b->y0) / c.h, c.s, c.d0, c.d1);
        c.u = (REAL)1 - c.t;
    } else {
        c.t = (at - b->x0) * over, c.u = (b->x1 - at) * over;
    }
    curve(&c);
    return c;
}

/* Gradients of the raw sizes along one axis: share * (gradient - mean), where a bin before this one moves the corner,
   this one the size. */
INLINE void spread_out(IO *to, int64_t stride, int bins, const V *e, V sum, V place, V before, V own, V mean) {
    V part = (REAL)1 / sum;
    if (bins == 1) own = mean; /* there is nothing to share */
    before = (before - mean) * part, own = (own - mean) * part, mean = -mean * part;
    for (int k = 0; k < bins; k++) {
        V at = all(k), g = pick((U)(place > at), before, pick((U)(place == at), own, mean));
        store(to + k * stride, e[k] * g);
    }
}

/* Gradients of y and of log dy/dx, weighted gy and gl, with respect to raw (where wanted) and to x, which is returned. */
INLINE V pull_back(const Curve *c, const Bin *b, V gy, V gl, const V *e, const Job *job, IO *to, int64_t stride) {
    const int bins = job->bins;
    const REAL bound = (REAL)job->bound, least = (REAL)(2 * job->bound * SMALLEST_BIN);
    const REAL scale = (REAL)(2 * job->bound * (1 - bins * SMALLEST_BIN));
    V t = c->t, u = c->u, tu = t * u, tt = t * t, uu = u * u, ends = tt + uu, over = (REAL)1 / c->w;
    V up = gy * c->h * c->over, gq = gl / c->climb, gd = (REAL)2 * gl * c->over;
    V gt = up * c->s * c->climb * c->over + (REAL)2 * gq * (c->d1 * t + c->s * (u - t) - c->d0 * u) -
           gd * (u - t) * (c->d0 + c->d1 - (REAL)2 * c->s);
    V gx = gt * over;
    if (!to) return gx;
    V gs = up * (tt - c->share * ends) + (REAL)2 * (gq * tu + gl / c->s) - gd * ends;
    V common = tu * (up * c->share + gd);
    V g0 = (up * tu + gq * uu - common) * c->d0 * c->bent0, g1 = (gq * tt - common) * c->d1 * c->bent1;
    V size_x = -(gs * c->s + gt * t) * over, size_y = gy * c->share + gs * over;
    V place = b->place;
    V mean_x = size_x * (c->w - least) - gx * (b->x0 + bound - least * place);
    V mean_y = size_y * (c->h - least) + gy * (b->y0 + bound - least * place);
    spread_out(to, stride, bins, e, b->sum[0], place, gx * -scale, size_x * scale, mean_x);
    spread_out(to + bins * stride, stride, bins, e + bins, b->sum[1], place, gy * scale, size_y * scale, mean_y);
    to += 2 * bins * stride;
    V zero = all(0);
    if (job->circular) {
        V after = pick((U)(place == all(bins - 1)), zero, place + (REAL)1);
        for (int k = 0; k < bins; k++) {
            V at = all(k);
            store(to + k * stride, pick((U)(place == at), g0, zero) + pick((U)(after == at), g1, zero));
        }
    } else {
        for (int k = 1; k < bins; k++)
            store(to + (k - 1) * stride, pick((U)(place == all(k)), g0, pick((U)(place == all(k - 1)), g1, zero)));
    }
    return gx;
}

/* LANES numbers, `stride` apart from row to row of raw. */
INLINE void vector(const int what, const Job *job, const IO *x, const IO *raw, int64_t stride, const IO *g_moved,
                   const IO *g_slope, IO *moved, IO *slope, IO *g_raw, int64_t g_stride) {
    V e[2 * MOST_BINS];
    const int inverse = what >= INVERSE, gradient = what == BACKWARD || what == INVERSE_BACKWARD;
    const REAL edge = (REAL)(IO)job->bound;
    V given = load(x), at = given, zero = all(0);
    U inside = (U)(given >= all(-(double)edge)) & (U)(given <= all(edge));
    if (job->circular) inside = ~(U)zero;
    at = pick((U)(at < all(-(double)edge)), all(-(double)edge), pick((U)(at > all(edge)), all(edge), at));
    Bin b = locate(at, inverse, raw, stride, job, e);
    Curve c = place_on(at, &b, inverse);
    V ratio = c.s * c.over, steep = ratio * ratio * c.climb;
    if (!gradient) {
        V y = inverse ? b.x0 + c.w * c.t : b.y0 + c.h * c.share, l = logarithm(steep);
        store(moved, pick(inside, y, given));
        store(slope, pick(inside, inverse ? -l : l, zero));
        return;
    }
    V gm = g_moved ? load(g_moved) : zero, gl = g_slope ? load(g_slope) : zero;
    V passed = gm;
    gm = pick(inside, gm, zero), gl = pick(inside, gl, zero);
    if (inverse) { /* x gains what the slope at x has to do with it; the rest is that of y, held in place */
        V bend = pull_back(&c, &b, zero, gl, e, job, 0, 0), g = (gm - bend) / steep;
        store(moved, pick(inside, g, passed));
        pull_back(&c, &b, -g, -gl, e, job, g_raw, g_stride);
    } else {
        store(moved, pick(inside, pull_back(&c, &b, gm, gl, e, job, g_raw, g_stride), passed));
    }
}

/* Fewer than LANES numbers, by way of a full vector. */
static __attribute__((noinline)) void rest(const int what, const Job *job, int64_t i, int count) {
    const int width = 3 * job->bins - !job->circular;
    const int64_t m = job->m;
    IO x[LANES], gm[LANES], gs[LANES], moved[LANES], slope[LANES], raw[3 * MOST_BINS * LANES], graw[3 * MOST_BINS * LANES];
    memset(x, 0, sizeof x), memset(gm, 0, sizeof gm), memset(gs, 0, sizeof gs);
    memset(raw, 0, sizeof(IO) * LANES * width);
    memcpy(x, (const IO *)job->x + i, sizeof(IO) * count);
    for (int k = 0; k < width; k++)
        memcpy(raw + k * LANES, (const IO *)job->raw + k * m + i, sizeof(IO) * count);
    if (job->g_moved) memcpy(gm, (const IO *)job->g_moved + i, sizeof(IO) * count);
    if (job->g_slope) memcpy(gs, (const IO *)job->g_slope + i, sizeof(IO) * count);
    vector(what, job, x, raw, LANES, gm, gs, moved, slope, job->g_raw ? graw : 0, LANES);
    memcpy((IO *)job->moved + i, moved, sizeof(IO) * count);
    if (job->slope) memcpy((IO *)job->slope + i, slope, sizeof(IO) * count);
    for (int k = 0; job->g_raw && k < width; k++)
        memcpy((IO *)job->g_raw + k * m + i, graw + k * LANES, sizeof(IO) * count);
}

INLINE void moves(const int what, const Job *job, int64_t start, int64_t stop) {
    const IO *x = job->x, *raw = job->raw, *gm = job->g_moved, *gs = job->g_slope;
    IO *moved = job->moved, *slope = job->slope, *g_raw = job->g_raw;
    int64_t i = start;
    for (; i + LANES <= stop; i += LANES)
        vector(what, job, x + i, raw + i, job->m, gm ? gm + i : 0, gs ? gs + i : 0, moved + i, slope ? slope + i : 0,
               g_raw ? g_raw + i : 0, job->m);
    if (i < stop) rest(what, job, i, (int)(stop - i));
}

static void run(const Job *job, int64_t start, int64_t stop) {
    switch (job->what) {
#if INWARD
    case FORWARD: moves(FORWARD, job, start, stop); break;
    case BACKWARD: moves(BACKWARD, job, start, stop); break;
#endif
#if !SINGLE
    case INVERSE: moves(INVERSE, job, start, stop); break;
    case INVERSE_BACKWARD: moves(INVERSE_BACKWARD, job, start, stop); break;
#endif
    }
}
