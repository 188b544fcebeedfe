#!/usr/bin/env node
// Starts server/main.ts. Node 20 does not run TypeScript, and no Node does so below node_modules: there tsx helps.
if (!process.features.typescript || import.meta.url.includes('/node_modules/')) {
  const { register } = await import('tsx/esm/api');
  register();
}
const { main } = await import('../server/main.ts');
await main(process.argv.slice(2));
