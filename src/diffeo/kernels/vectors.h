/* Vectors of LANES numbers, and the functions of them that kernels are made of. */

#define LANES (BYTES / (int)sizeof(REAL))
#define V NAMED(V)
#define U NAMED(U)
#define W NAMED(W)

typedef REAL V __attribute__((vector_size(BYTES)));
typedef BITS U __attribute__((vector_size(BYTES)));
typedef IO W __attribute__((vector_size(BYTES / sizeof(REAL) * sizeof(IO))));

#define load NAMED(load)
#define store NAMED(store)
#define all NAMED(all)
#define pick NAMED(pick)
#define exponential NAMED(exponential)
#define logarithm NAMED(logarithm)
#define root_of NAMED(root_of)
#define hyperbolic NAMED(hyperbolic)
#define clipped NAMED(clipped)
#define cut NAMED(cut)

INLINE V all(double value) {
    V v = {0};
    return v + (REAL)value;
}

INLINE V load(const IO *from) {
    W w;
    memcpy(&w, from, sizeof w);
    return __builtin_convertvector(w, V);
}

INLINE void store(IO *to, V v) {
    W w = __builtin_convertvector(v, W);
    memcpy(to, &w, sizeof w);
}

/* a where the mask is set, else b */
INLINE V pick(U mask, V a, V b) { return (V)((mask & (U)a) | (~mask & (U)b)); }

/* exp(z) = scale + scale * (what is returned), z <= 88 or 709; where exp(z) is too small for a normal number, about that number.
   z = n log 2 + r, |r| <= log(2)/2; the polynomial of (exp(r) - 1 - r) / r^2 is off by 8e-9 or 1.4e-17 of exp(r). */
INLINE V exponential(V z, V *scale) {
#if SINGLE
    const double lowest = -87, shift = 12583039, high = 0.693145751953125, low = 1.42860682030941723e-6;
    const int mantissa = 23;
#else
    const double lowest = -708, shift = 6755399441056767, high = 0.693147180369123816490, low = 1.90821492927058770002e-10;
    const int mantissa = 52;
#endif
    z = pick((U)(z < all(lowest)), all(lowest), z);
    V n = z * (REAL)1.44269504088896340736 + (REAL)shift; /* its last bits hold n and the bias of an exponent */
    *scale = (V)((U)n << mantissa);
    n -= (REAL)shift;
    V r = z - n * (REAL)high;
    r -= n * (REAL)low;
#if SINGLE
    V p = r * 1.39269266140219065e-3f + 8.3637738744055735e-3f;
    p = p * r + 4.16665501103051244e-2f;
    p = p * r + 1.6666573381900846e-1f;
    p = p * r + 0.5f;
#else
    V p = r * 2.51013469283503402e-8 + 2.76213386691429238e-7;
    p = p * r + 2.75572664186123037e-6;
    p = p * r + 2.48015186413959936e-5;
    p = p * r + 1.98412698643805133e-4;
    p = p * r + 1.38888889189391678e-3;
    p = p * r + 8.3333333333297935e-3;
    p = p * r + 4.16666666666206386e-2;
    p = p * r + 1.66666666666666675e-1;
    p = p * r + 0.500000000000000113;
#endif
    return r + r * r * p;
}

/* log(a) of a normal a > 0, NaN of NaN: a = 2^n (1 + f), log(1 + f) = 2 artanh(f / (2 + f)), by its power series. */
INLINE V logarithm(V a) {
#if SINGLE
    const BITS half = 0x3f3504f3u, one = 0x3f800000u; /* of sqrt(1/2) and of 1 */
    const BITS bias = 0x4b400000u - 127;              /* of 1.5 * 2^23 */
    const double shift = 12582912, high = 0.693145751953125, low = 1.42860682030941723e-6;
    const int mantissa = 23;
#else
    const BITS half = 0x3fe6a09e667f3bcdu, one = 0x3ff0000000000000u;
    const BITS bias = 0x4338000000000000u - 1023;
    const double shift = 6755399441055744, high = 0.693147180369123816490, low = 1.90821492927058770002e-10;
    const int mantissa = 52;
#endif
    U bits = (U)a, exponent = (bits + (one - half)) >> mantissa;
    V n = (V)(exponent + bias) - (REAL)shift;
    V f = (V)(bits - ((exponent << mantissa) - one)) - (REAL)1;
    V s = f / (f + (REAL)2), z = s * s, square = f * f * (REAL)0.5;
#if SINGLE
    V p = z * (REAL)(2.0 / 11) + (REAL)(2.0 / 9);
#else
    V p = z * (REAL)(2.0 / 23) + (REAL)(2.0 / 21);
    p = p * z + (REAL)(2.0 / 19);
    p = p * z + (REAL)(2.0 / 17);
    p = p * z + (REAL)(2.0 / 15);
    p = p * z + (REAL)(2.0 / 13);
    p = p * z + (REAL)(2.0 / 11);
    p = p * z + (REAL)(2.0 / 9);
#endif
    p = p * z + (REAL)(2.0 / 7);
    p = p * z + (REAL)(2.0 / 5);
    p = p * z + (REAL)(2.0 / 3);
    V log1p = f - (square - (s * (square + p * z) + n * (REAL)low));
    return n * (REAL)high + log1p + a * (REAL)0;
}

INLINE V root_of(V a) {
    V r;
    for (int j = 0; j < LANES; j++) r[j] = SINGLE ? (REAL)__builtin_sqrtf((float)a[j]) : (REAL)__builtin_sqrt(a[j]);
    return r;
}

/* tanh(v), and its slope */
INLINE V hyperbolic(V v, V *slope) {
    V scale, z = (V)((U)v | (U)-all(0)) * (REAL)2; /* -2 |v| */
    V p = exponential(z, &scale), e = scale * p + (scale - (REAL)1), share = (REAL)2 / (e + (REAL)2), size = -e / (e + (REAL)2);
    *slope = pick((U)(z < all(SINGLE ? -80 : -700)), all(0), (scale + scale * p) * share * share);
    return pick((U)(v < all(0)), -size, size);
}

/* v within +-bound, then bending to +-(bound + 1); and the slope of that */
INLINE V clipped(V v, REAL bound, V *slope) {
    V edge = pick((U)(v < -all(bound)), -all(bound), pick((U)(v > all(bound)), all(bound), v));
    return edge + hyperbolic(pick((U)(v == edge), all(0), v - edge), slope);
}

/* v within +-bound; and the slope of that */
INLINE V cut(V v, REAL bound, V *slope) {
    V edge = pick((U)(v < -all(bound)), -all(bound), pick((U)(v > all(bound)), all(bound), v));
    *slope = pick((U)(v == edge), all(1), all(0)); /* 0 of a NaN */
    return edge;
}
