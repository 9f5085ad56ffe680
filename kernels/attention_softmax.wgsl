// Within attention's loop over keys: takes a tile's `logits` in, online (FlashAttention-2, Dao 2023).
let key = vec4u(k0 + tx * 4) + vec4u(0, 1, 2, 3);
var peak = largest;
//#for i in 0..4
logits[$i] = select(vec4f(NOTHING), logits[$i], within(key, first[$i], last[$i]));
peak[$i] = max(max(max(logits[$i].x, logits[$i].y), max(logits[$i].z, logits[$i].w)), peak[$i]);
//#end
shared4[tx * 8 + ty] = peak;
workgroupBarrier();
//#for i in 0..8
peak = max(peak, shared4[$i * 8 + ty]);
//#end
let rescale = exp(largest - peak);
largest = peak;
var weights: mat4x4f;
//#for i in 0..4
weights[$i] = select(vec4f(), exp(logits[$i] - peak[$i]), within(key, first[$i], last[$i]));
total[$i] = total[$i] * rescale[$i] + dot(weights[$i], vec4f(1));
//#end
setWeights(weights, thread);
//#for c in 0..CHUNKS
//#for i in 0..4
sums[$c][$i] *= rescale[$i];
//#end
sums[$c] += weigh(VALUE, k0, head, $c * 32, thread);
//#end
