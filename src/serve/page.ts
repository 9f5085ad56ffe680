/**
 * The page at `/`: one HTML text without any other resource. Its sources lie in `page/`; `deno task build` joins them.
 *
 * @module
 */
export { PAGE } from "./page.gen.ts";
