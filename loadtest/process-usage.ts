/**
 * Memory and processor time of a process and of all that descend from it, from /proc. Knows no servers. Called by the
 * evaluations that sample a server while it works. Systems without /proc give null: not measured.
 */
import { existsSync, readFileSync } from 'node:fs';

export interface Usage {
  /** Resident bytes, summed over the processes. Pages that they share count more than once. */
  readonly residentBytes: number;
  /** Seconds of processor time since their start, summed over processes and threads. */
  readonly cpuSeconds: number;
}

/** What Linux gives processor time in, on every architecture that Node runs on. */
const TICKS_PER_SECOND = 100;

export function usageOf(pid: number): Usage | null {
  if (!existsSync(`/proc/${pid}/stat`)) return null;
  const own = readOwn(pid);
  const below = childrenOf(pid).flatMap((child) => usageOf(child) ?? []);
  return {
    residentBytes: below.reduce((sum, { residentBytes }) => sum + residentBytes, own.residentBytes),
    cpuSeconds: below.reduce((sum, { cpuSeconds }) => sum + cpuSeconds, own.cpuSeconds),
  };
}

function readOwn(pid: number): Usage {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  // The second field is the name in brackets and may hold spaces; utime and stime are fields 14 and 15.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const resident = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  return { residentBytes: 1024 * Number(resident?.[1] ?? 0), cpuSeconds: (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND };
}

/** Forked by its main thread, which is the one that Node forks from. */
function childrenOf(pid: number): number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number);
}
