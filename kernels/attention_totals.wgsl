// Behind attention's loop over keys: each row's `total` over all columns.
shared4[tx * 8 + ty] = total;
workgroupBarrier();
total = vec4f();
//#for i in 0..8
total += shared4[$i * 8 + ty];
//#end
