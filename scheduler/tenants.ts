/**
 * Fair queueing between tenants by virtual token counters (VTC, Sheng et al., OSDI 2024): whoever has been
 * served least goes first. A tenant that comes back from idleness is lifted to the least served of the
 * active ones, so that idle time cannot be saved up. Knows tenants' names and token counts only.
 * Called by live-sequences.ts, commit.ts and the queue's order.
 */

interface Tenant {
  /** Virtual tokens served so far. */
  service: number;
  numLive: number;
}

export class Tenants {
  readonly #tenants = new Map<string, Tenant>();

  /** A sequence of this tenant has arrived. */
  arrive(name: string): void {
    const tenant = this.#tenants.get(name) ?? { service: 0, numLive: 0 };
    if (tenant.numLive === 0) tenant.service = Math.max(tenant.service, this.#leastService());
    tenant.numLive++;
    this.#tenants.set(name, tenant);
  }

  /** A sequence of this tenant has ended. When nobody is left, all is forgiven. */
  leave(name: string): void {
    const tenant = this.#tenants.get(name);
    if (tenant === undefined || tenant.numLive === 0) throw new Error(`tenant "${name}" has 0 live sequences, expected at least 1`);
    tenant.numLive--;
    if ([...this.#tenants.values()].every(({ numLive }) => numLive === 0)) this.#tenants.clear();
  }

  charge(name: string, tokens: number): void {
    const tenant = this.#tenants.get(name);
    if (tenant !== undefined) tenant.service += tokens;
  }

  serviceOf(name: string): number {
    return this.#tenants.get(name)?.service ?? 0;
  }

  #leastService(): number {
    const active = [...this.#tenants.values()].filter(({ numLive }) => numLive > 0);
    return active.length === 0 ? 0 : Math.min(...active.map(({ service }) => service));
  }
}
