// One-dimensional work on a grid that is folded where an axis may not hold it (65,535 workgroups).

fn linear(group: vec3u, groups: vec3u) -> u32 {
  return group.y * groups.x + group.x;
}
