// The rows of pages on the device: what the host says, when it is brought; nobody's row where a head has none.
import { afterAll, describe, expect, test } from 'vitest';
import { whyNoCuda } from '../../../engine/cuda/availability.ts';
import { Device } from '../../../engine/cuda/device.ts';
import { DeviceMemory } from '../../../engine/cuda/device-memory.ts';
import { DevicePageRows } from '../../../engine/cuda/device-page-rows.ts';
import { SeededRandom } from '../../seeded-random.ts';
import { buildFakeCuda } from './fake-cuda.ts';

const real = { folder: process.env['LONGSPAN_CUDA_LIBRARIES'] ?? '', environment: process.env };
// Where there is a device its libraries are loaded, and the fake would be taken for them.
const fake = whyNoCuda(real) === null ? null : buildFakeCuda();
afterAll(() => { fake?.remove(); });
const libraries = whyNoCuda(real) === null ? real : fake?.settings ?? null;

const [PAGES, IDS, HEADS] = [6, 24, 5];

describe.skipIf(libraries === null)('rows of pages on the device', () => {
  test('are those of the host after a random history, and 0 for heads that have none', () => {
    const device = Device.open(libraries!);
    const memory = new DeviceMemory(device);
    const rows = new DevicePageRows(memory, { pages: PAGES, ids: IDS, heads: HEADS });
    const random = new SeededRandom(11);
    const held = new Map<number, Set<number>>();
    const numHeld = (): number => [...held.values()].reduce((sum, heads) => sum + heads.size, 0);
    for (let step = 0; step < 300; step++) {
      const page = random.below(IDS);
      const heads = held.get(page);
      if (heads === undefined && numHeld() <= (PAGES - 1) * HEADS) {
        rows.place(page);
        held.set(page, new Set(Array(HEADS).keys()));
      } else if (heads !== undefined && random.below(2) === 0) {
        rows.release(page, null);
        held.delete(page);
      } else if (heads !== undefined) {
        const passed = random.below(HEADS);
        rows.release(page, Int32Array.of(passed));
        heads.delete(passed);
      }
      if (random.below(3) > 0) continue;
      rows.bring();
      expect(readBack()).toEqual(Array.from({ length: IDS * HEADS }, (_, i) => {
        const [at, head] = [Math.floor(i / HEADS), i % HEADS];
        return held.get(at)?.has(head) === true ? rows.of(at, head) : 0;
      }));
    }
    expect(new Set(readBack().filter((row) => row > 0)).size).toBe(readBack().filter((row) => row > 0).length);
    memory.close();
    device.close();

    function readBack(): number[] {
      return [...new Int32Array(memory.read({ address: rows.address(0), bytes: DevicePageRows.bytes({ ids: IDS, heads: HEADS }) }))];
    }
  });
});
