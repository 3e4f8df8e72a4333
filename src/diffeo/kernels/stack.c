/* A stack of affine couplings of diffeo.transforms.stacked, there and back: the formulas are that file's.

   Rows go in blocks of BLOCK, feature first: a number stands beside the same one of the next row. A gradient is computed
   from x and weights alone, block by block. What `kept` holds of a block and a step, `features` of them: inputs of the nets, and the slopes of what clips them; the
   half that moves before and after, its slope of what clips it, its scale, slope of the log-scale, log-scale before its
   factor; the hidden layers. */

#define product NAMED(product)
#define tile NAMED(tile)
#define band NAMED(band)
#define Layer NAMED(Layer)
#define Step NAMED(Step)
#define step_of NAMED(step_of)
#define layer_of NAMED(layer_of)
#define net_there NAMED(net_there)
#define net_back NAMED(net_back)
#define step_there NAMED(step_there)
#define step_back NAMED(step_back)
#define gather NAMED(gather)
#define scatter NAMED(scatter)
#define add_weights NAMED(add_weights)
#define stack NAMED(stack)

#define ACROSS (BYTES == 64 ? 4 : 2) /* vectors of one row of a tile */
#define GROUP 16                     /* rows over which sums are in their own type, beyond in double */
#define DOWN 4                       /* rows of a tile */

/* c [m, v LANES] = start [m] + a [m, k] b [k, v LANES]; a's steps are by row and by column */
INLINE void tile(const int m, const int v, int k, const REAL *a, int by_row, int by_column, const REAL *b, int ldb,
                 const REAL *start, REAL *c, int ldc) {
    V sum[DOWN][4];
    for (int i = 0; i < m; i++)
        for (int j = 0; j < v; j++) sum[i][j] = all(0) + (start ? start[i] : 0);
    for (int l = 0; l < k; l++) {
        V right[4];
        for (int j = 0; j < v; j++) right[j] = load(b + l * ldb + j * LANES);
        for (int i = 0; i < m; i++) {
            V left = all(0) + a[i * by_row + l * by_column];
            for (int j = 0; j < v; j++) sum[i][j] += left * right[j];
        }
    }
    for (int i = 0; i < m; i++)
        for (int j = 0; j < v; j++) store(c + i * ldc + j * LANES, sum[i][j]);
}

/* The same for any number of vectors v. */
INLINE void band(const int m, int v, int k, const REAL *a, int by_row, int by_column, const REAL *b, int ldb,
                 const REAL *start, REAL *c, int ldc) {
    for (; v >= ACROSS; v -= ACROSS, b += ACROSS * LANES, c += ACROSS * LANES)
        tile(m, ACROSS, k, a, by_row, by_column, b, ldb, start, c, ldc);
    switch (v) {
    case 3: tile(m, 3, k, a, by_row, by_column, b, ldb, start, c, ldc); break;
    case 2: tile(m, 2, k, a, by_row, by_column, b, ldb, start, c, ldc); break;
    case 1: tile(m, 1, k, a, by_row, by_column, b, ldb, start, c, ldc); break;
    }
}

/* The same for any number of rows m and of vectors v. */
static void product(int m, int v, int k, const REAL *a, int by_row, int by_column, const REAL *b, int ldb,
                    const REAL *start, REAL *c, int ldc) {
    int i = 0;
    for (; i + DOWN <= m; i += DOWN)
        band(DOWN, v, k, a + i * by_row, by_row, by_column, b, ldb, start ? start + i : 0, c + i * ldc, ldc);
    for (; i + 2 <= m; i += 2)
        band(2, v, k, a + i * by_row, by_row, by_column, b, ldb, start ? start + i : 0, c + i * ldc, ldc);
    if (i < m) band(1, v, k, a + i * by_row, by_row, by_column, b, ldb, start ? start + i : 0, c + i * ldc, ldc);
}

typedef struct { /* a layer's place: weight [out, ld], of which `in` columns count */
    const REAL *weight, *bias;
    double *g_weight, *g_bias;
    int out, in, ld;
} Layer;

typedef struct { /* a step's place */
    const REAL *const *weights;
    double *const *gradients;
    int stay, move, stays_at, moves_at, inverted;
    REAL limit;
    REAL *seen, *by_seen, *before, *after, *by_before, *scale, *by_scale, *unscaled, *hidden; /* in what is kept */
} Step;

INLINE Step step_of(const Stack *s, int i, REAL *kept) {
    Step t;
    const int first = s->movers[i] == 0, d = s->sizes[0] + s->sizes[1];
    t.move = s->sizes[first ? 0 : 1], t.stay = d - t.move;
    t.moves_at = first ? 0 : s->sizes[0], t.stays_at = first ? s->sizes[0] : 0;
    t.inverted = s->inverted[i], t.limit = (REAL)s->limits[i];
    t.weights = (const REAL *const *)s->weights + i * s->tensors;
    t.gradients = s->sums + i * s->tensors;
    REAL *at = kept + (int64_t)i * s->features * BLOCK;
    t.seen = at, at += t.stay * BLOCK;
    t.by_seen = at, at += t.stay * BLOCK;
    t.before = at, at += t.move * BLOCK;
    t.after = at, at += t.move * BLOCK;
    t.by_before = at, at += t.move * BLOCK;
    t.scale = at, at += t.move * BLOCK;
    t.by_scale = at, at += t.move * BLOCK;
    t.unscaled = at, at += t.move * BLOCK;
    t.hidden = at;
    return t;
}

/* Layer l of a net whose first tensor is `first`: of a pair of nets, what moves and what stays is a part of the ends. */
INLINE Layer layer_of(const Stack *s, const Step *t, int first, int l, int gradient) {
    const int last = l == s->depth, d = s->sizes[0] + s->sizes[1];
    Layer y;
    y.in = l ? s->widths[l - 1] : t->stay, y.ld = l || !s->pair ? y.in : d;
    y.out = !last ? s->widths[l] : s->pair ? t->move : 2 * t->move;
    const int row = s->pair && last ? t->moves_at : 0, skip = row * y.ld + (s->pair && !l ? t->stays_at : 0);
    y.weight = t->weights[first + 2 * l] + skip, y.bias = t->weights[first + 2 * l + 1] + row;
    y.g_weight = gradient ? t->gradients[first + 2 * l] + skip : 0;
    y.g_bias = gradient ? t->gradients[first + 2 * l + 1] + row : 0;
    return y;
}

/* A perceptron of what is seen; its hidden layers [width, BLOCK] are kept. */
static void net_there(const Stack *s, const Step *t, int first, int vectors, REAL *hidden, REAL *told) {
    const REAL *h = t->seen;
    const REAL leak = (REAL)LEAK;
    for (int l = 0; l <= s->depth; l++) {
        Layer y = layer_of(s, t, first, l, 0);
        REAL *to = l == s->depth ? told : hidden;
        product(y.out, vectors, y.in, y.weight, y.ld, 1, h, BLOCK, y.bias, to, BLOCK);
        if (l == s->depth) return;
        for (int i = 0; i < y.out; i++)
            for (int j = 0; j < vectors; j++) {
                V v = load(to + i * BLOCK + j * LANES);
                store(to + i * BLOCK + j * LANES, pick((U)(v < all(0)), s->pair ? v * leak : all(0), v));
            }
        h = to, hidden += y.out * BLOCK;
    }
}

/* Adds what rows of h [in, BLOCK] and g [out, BLOCK] say of a layer's weights. */
static void add_weights(const Layer *y, const REAL *h, const REAL *g, int rows) {
    REAL turned[BLOCK * (MOST_WIDTH + 2 * LANES)], found[(MOST_WIDTH + 2) * (MOST_WIDTH + 2 * LANES)];
    const int vectors = y->in / LANES + 1, ld = vectors * LANES; /* a column of ones stands behind, for the bias */
    for (int j = 0; j < rows; j++) {
        for (int k = 0; k < y->in; k++) turned[j * ld + k] = h[k * BLOCK + j];
        turned[j * ld + y->in] = 1;
        for (int k = y->in + 1; k < ld; k++) turned[j * ld + k] = 0;
    }
    for (int j = 0; j < rows; j += GROUP) {
        product(y->out, vectors, rows - j < GROUP ? rows - j : GROUP, g + j, BLOCK, 1, turned + j * ld, ld, 0, found, ld);
        for (int i = 0; i < y->out; i++) {
            for (int k = 0; k < y->in; k++) y->g_weight[i * y->ld + k] += found[i * ld + k];
            y->g_bias[i] += found[i * ld + y->in];
        }
    }
}

/* Gradients of a perceptron's weights, and of what it saw, from that of its outcome: g, which is overwritten. */
static void net_back(const Stack *s, const Step *t, int first, int vectors, const REAL *hidden, REAL *g, REAL *other) {
    const REAL leak = (REAL)LEAK;
    int below = 0; /* features of the hidden layers below */
    for (int l = 0; l < s->depth; l++) below += s->widths[l];
    for (int l = s->depth; l >= 0; l--) {
        Layer y = layer_of(s, t, first, l, 1);
        if (l) below -= y.in;
        const REAL *h = l ? hidden + below * BLOCK : t->seen;
        add_weights(&y, h, g, vectors * LANES);
        product(y.in, vectors, y.out, y.weight, 1, y.ld, g, BLOCK, 0, other, BLOCK);
        for (int i = 0; l && i < y.in; i++)
            for (int j = 0; j < vectors; j++) {
                V v = load(h + i * BLOCK + j * LANES), gv = load(other + i * BLOCK + j * LANES);
                store(other + i * BLOCK + j * LANES, pick((U)(v <= all(0)), s->pair ? gv * leak : all(0), gv));
            }
        REAL *swap = g;
        g = other, other = swap;
    }
    if (s->depth % 2) memcpy(other, g, sizeof(REAL) * t->stay * BLOCK); /* where the caller looks for it */
}

static void step_there(const Stack *s, const Step *t, int vectors, REAL *rows, REAL *log_det) {
    REAL told[2 * MOST_D * BLOCK];
    for (int i = 0; i < t->stay; i++)
        for (int j = 0; j < vectors; j++) {
            int at = i * BLOCK + j * LANES;
            V v = load(rows + t->stays_at * BLOCK + at), slope;
            v = s->pair ? cut(v, (REAL)FURTHEST, &slope) : clipped(v, (REAL)NEAR, &slope);
            store(t->seen + at, v), store(t->by_seen + at, slope);
        }
    int hidden = 0;
    for (int l = 0; l < s->depth; l++) hidden += s->widths[l];
    net_there(s, t, s->pair, vectors, t->hidden, told);
    if (s->pair)
        net_there(s, t, 1 + 2 * (s->depth + 1), vectors, t->hidden + hidden * BLOCK, told + t->move * BLOCK);
    for (int i = 0; i < t->move; i++) {
        const REAL factor = s->pair ? t->weights[0][t->moves_at + i] : 1;
        for (int j = 0; j < vectors; j++) {
            int at = i * BLOCK + j * LANES;
            V slope, bend, unscaled = load(told + at), shift = load(told + t->move * BLOCK + at);
            V before = cut(load(rows + t->moves_at * BLOCK + at), (REAL)LARGEST, &slope), log_scale;
            if (s->bent) {
                V share = hyperbolic(unscaled * factor / t->limit, &bend);
                log_scale = share * t->limit;
            } else {
                log_scale = clipped(unscaled * factor, t->limit, &bend);
            }
            if (t->inverted) log_scale = -log_scale;
            V base, part = exponential(log_scale, &base), scale = base + base * part;
            V after = t->inverted ? (before - shift) * scale : before * scale + shift;
            store(t->before + at, before), store(t->by_before + at, slope), store(t->after + at, after);
            store(t->scale + at, scale), store(t->by_scale + at, bend), store(t->unscaled + at, unscaled);
            store(rows + t->moves_at * BLOCK + at, after);
            store(log_det + j * LANES, load(log_det + j * LANES) + log_scale);
        }
    }
}

static void step_back(const Stack *s, const Step *t, int vectors, REAL *g_rows, const REAL *g_log_det) {
    REAL one[(MOST_WIDTH + 2) * BLOCK], other[(MOST_WIDTH + 2) * BLOCK], shifts[MOST_D * BLOCK];
    REAL *g_shift = s->pair ? shifts : one + t->move * BLOCK;
    for (int i = 0; i < t->move; i++) {
        const REAL factor = s->pair ? t->weights[0][t->moves_at + i] : 1;
        V by_factor = all(0);
        for (int j = 0; j < vectors; j++) {
            int at = i * BLOCK + j * LANES;
            REAL *place = g_rows + t->moves_at * BLOCK + at;
            V out = load(place), inner = out * load(t->scale + at), gl = load(g_log_det + j * LANES);
            V g = t->inverted ? -(gl + out * load(t->after + at)) : gl + inner * load(t->before + at);
            g = g * load(t->by_scale + at);
            by_factor += g * load(t->unscaled + at);
            store(one + at, g * factor), store(g_shift + at, t->inverted ? -inner : out);
            store(place, inner * load(t->by_before + at));
        }
        for (int j = 0; s->pair && j < LANES; j++) t->gradients[0][t->moves_at + i] += by_factor[j];
    }
    int hidden = 0;
    for (int l = 0; l < s->depth; l++) hidden += s->widths[l];
    for (int net = 0; net <= s->pair; net++) {
        REAL *g = net ? shifts : one;
        if (net) memcpy(one, shifts, sizeof(REAL) * t->move * BLOCK), g = one;
        net_back(s, t, s->pair + net * 2 * (s->depth + 1), vectors, t->hidden + net * hidden * BLOCK, g, other);
        for (int i = 0; i < t->stay; i++)
            for (int j = 0; j < vectors; j++) {
                int at = i * BLOCK + j * LANES;
                REAL *place = g_rows + t->stays_at * BLOCK + at;
                store(place, load(place) + load(other + at) * load(t->by_seen + at));
            }
    }
}

/* Rows [count, d] from `from`, feature first, zeros up to a full vector; and the other way round. */
INLINE void gather(REAL *to, const REAL *from, int count, int full, int d) {
    for (int i = 0; i < d; i++) {
        for (int j = 0; j < count; j++) to[i * BLOCK + j] = from[j * d + i];
        for (int j = count; j < full; j++) to[i * BLOCK + j] = 0;
    }
}

INLINE void scatter(REAL *to, const REAL *from, int count, int d) {
    for (int j = 0; j < count; j++)
        for (int i = 0; i < d; i++) to[j * d + i] = from[i * BLOCK + j];
}

/* One block, by way of `kept`: its outcome, or where gradients come in (g_z), gradients, those of weights added to what
   is there. */
static void stack(const Stack *s, int64_t block, void *kept) {
    REAL rows[MOST_D * BLOCK], beside[BLOCK] = {0};
    const int d = s->sizes[0] + s->sizes[1], count = (int)(s->n - block * BLOCK < BLOCK ? s->n - block * BLOCK : BLOCK);
    const int vectors = (count + LANES - 1) / LANES;
    const int64_t start = block * BLOCK;
    gather(rows, (const REAL *)s->x + start * d, count, vectors * LANES, d);
    for (int i = 0; i < s->steps; i++) {
        Step t = step_of(s, i, kept);
        step_there(s, &t, vectors, rows, beside);
    }
    if (!s->g_z) {
        scatter((REAL *)s->log_det + start, beside, count, 1);
        scatter((REAL *)s->z + start * d, rows, count, d);
        return;
    }
    gather(rows, (const REAL *)s->g_z + start * d, count, vectors * LANES, d);
    gather(beside, (const REAL *)s->g_log_det + start, count, vectors * LANES, 1);
    for (int i = s->steps - 1; i >= 0; i--) {
        Step t = step_of(s, i, kept);
        step_back(s, &t, vectors, rows, beside);
    }
    scatter((REAL *)s->g_x + start * d, rows, count, d);
}
