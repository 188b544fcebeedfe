/**
 * What `npm run test:gpu` prints at its end: a table of groups of tests, and one JSON line. Beside vitest's own
 * report, which names what failed.
 */
import type { Reporter, TestCase, TestModule } from 'vitest/node';

interface Row {
  passed: number;
  failed: number;
  skipped: number;
  milliseconds: number;
}

export default class GpuReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[]): void {
    const rows = new Map<string, Row>();
    for (const module of modules) for (const test of module.children.allTests()) count(rows, groupOf(module, test), test);
    process.stdout.write(`\n${'group'.padEnd(60)}${['passed', 'failed', 'skipped', 'seconds'].map((name) => name.padStart(10)).join('')}\n`);
    for (const [group, { passed, failed, skipped, milliseconds }] of rows) {
      const cells = [passed, failed, skipped, (milliseconds / 1000).toFixed(1)];
      process.stdout.write(`${group.padEnd(60)}${cells.map((cell) => String(cell).padStart(10)).join('')}\n`);
    }
    process.stdout.write(`${JSON.stringify(Object.fromEntries(rows))}\n`);
  }
}

function count(rows: Map<string, Row>, group: string, test: TestCase): void {
  const row = rows.get(group) ?? { passed: 0, failed: 0, skipped: 0, milliseconds: 0 };
  rows.set(group, row);
  const { state } = test.result();
  if (state === 'passed' || state === 'failed' || state === 'skipped') row[state]++;
  row.milliseconds += test.diagnostic()?.duration ?? 0;
}

/** The file, and the outermost group below 'on a device'. */
function groupOf(module: TestModule, test: TestCase): string {
  const path = test.fullName.split(' > ').slice(0, -1).filter((name) => name !== 'on a device');
  return [module.relativeModuleId.replace(/^.*\//, '').replace('.test.ts', ''), path[0] ?? ''].join(': ');
}
