/** A worker for text-service.test.ts: answers, throws or dies, as its task says. */
import { resourceLimits } from 'node:worker_threads';

export function run(task: string): string {
  if (task === 'throw') throw new Error('thrown by the task');
  // Ends the thread at once, as a fatal error would.
  if (task === 'die') process.exit(3);
  return `${task} (${Object.keys(resourceLimits).length > 0 ? 'thread' : 'main'})`;
}
