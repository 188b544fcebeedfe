/** The only file that knows the techniques' names. Called by the scheduler when a request arrives. */
import type { AttentionSettings, HeadGeometry, PageListPolicy } from './page-list.ts';
import { DensePages } from './dense.ts';
import { LServePages } from './lserve.ts';
import { StreamingPages } from './streaming.ts';

export function createPageListPolicy(settings: AttentionSettings, geometry: HeadGeometry): PageListPolicy {
  switch (settings.attention) {
    case 'dense': return new DensePages(geometry);
    case 'streaming': return new StreamingPages(settings, geometry);
    case 'lserve': return new LServePages(settings, geometry);
  }
}
