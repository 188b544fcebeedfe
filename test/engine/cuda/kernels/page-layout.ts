/**
 * Where a token's channels lie in a page, as engine/cuda/kernels/CONTRACT.md says, written down a second time so that
 * the kernels' own arithmetic is checked. Used by the kernel tests.
 */
import { PAGE_TOKENS } from '../../../../kvcache/page-lists/page-list.ts';

export function headPad(headDim: number): number {
  return Math.ceil(headDim / 64) * 64;
}

/** Elements of one page of one KV head. */
export function pageElements(headDim: number): number {
  return PAGE_TOKENS * headPad(headDim);
}

/** Rows of 64 channels, 8 units of 8 channels each; unit u of token t lies at place u ^ (t & 7). */
export function offsetInPage(token: number, channel: number): number {
  const row = Math.floor(channel / 64) * PAGE_TOKENS + token;
  const unit = Math.floor(channel % 64 / 8);
  return row * 64 + (unit ^ (token & 7)) * 8 + channel % 8;
}
