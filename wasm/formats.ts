/** How a matrix is stored, as the backend numbers it. */

export const F32: u32 = 0;
export const F16: u32 = 1;
export const Q8: u32 = 2;
export const Q4: u32 = 3;
/** Not packed: a plain, row-major tensor of floats. */
export const PLAIN: u32 = 4;
