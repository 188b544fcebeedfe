/**
 * Decode runs as graphs: what a run puts on the stream is recorded when it comes again, and replayed from then on. Knows
 * neither kernels nor tables: a key says what a run depends on. Owned by cuda-engine.ts.
 */
import type { Device, Graph } from './device.ts';
import type { Workspace } from './workspace.ts';

const MOST_GRAPHS = 64;

export class RecordedRuns {
  readonly #device: Device;
  readonly #workspace: Workspace;
  readonly #graphs = new Map<string, Graph>();
  readonly #seen = new Set<string>();
  /** Of the workspace whose addresses the graphs hold. */
  #epoch = 0;

  constructor(device: Device, workspace: Workspace) {
    this.#device = device;
    this.#workspace = workspace;
  }

  /** A run that came before is replayed; its first time shows that all its plans are made, its second is recorded. */
  run(key: string, issue: () => void): void {
    if (this.#epoch !== this.#workspace.epoch) this.drop();
    let graph = this.#graphs.get(key);
    if (graph === undefined && !this.#seen.has(key)) {
      this.#seen.add(key);
      issue();
      return;
    }
    if (graph === undefined) {
      if (this.#graphs.size >= MOST_GRAPHS) this.drop();
      graph = this.#device.capture(issue);
      this.#graphs.set(key, graph);
    }
    graph.launch();
  }

  /** Forgets all, once the device has ended what runs. */
  drop(): void {
    this.#device.synchronize();
    for (const graph of this.#graphs.values()) graph.free();
    this.#graphs.clear();
    this.#seen.clear();
    this.#epoch = this.#workspace.epoch;
  }
}
