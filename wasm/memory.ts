/** What the backend asks of the memory itself. */

/** Where the kernels' constants end in memory; what is allocated must lie beyond. */
export function constantsEnd(): usize {
  return __heap_base;
}

/** Pages of memory that this instance knows of: it may hear late of those that another thread added. */
export function pages(): i32 {
  return memory.size();
}
