/** @module */
export const PAGE = "";
