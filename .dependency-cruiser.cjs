// Dependencies point one way (docs/architecture.md). No cycles anywhere.
const only = (from, ...to) => ({
  name: `${from}-imports-only-${to.join('-') || 'nothing'}`,
  severity: 'error',
  from: { path: `^${from}/` },
  to: { path: '^(bin|calibrate|config|retrieval|server|routes|tokenizer|scheduler|kvcache|engine|loadtest|test)/', pathNot: `^(${[from, ...to].join('|')})` },
});
module.exports = {
  forbidden: [
    { name: 'no-cycles', severity: 'error', from: {}, to: { circular: true } },
    only('config'),
    only('kvcache/'.slice(0, -1)),
    only('tokenizer'),
    only('engine', 'kvcache/'),
    only('scheduler', 'kvcache/', 'engine/', 'config/'),
    only('retrieval', 'tokenizer/'),
    only('server', 'config/', 'tokenizer/', 'retrieval/', 'scheduler/messages', 'routes/'),
    only('routes', 'server/', 'tokenizer/', 'scheduler/messages', 'config/'),
    only('loadtest'),
    only('calibrate', 'tokenizer/', 'kvcache/', 'engine/'),
    { name: 'engines-apart', severity: 'error', from: { path: '^engine/(onnx|cuda|fake|reference)/' }, to: { path: '^engine/(onnx|cuda|fake|reference)/', pathNot: '^engine/$1/' } },
    { name: 'not-to-test', severity: 'error', from: { pathNot: '^test/' }, to: { path: '^test/' } },
  ],
  options: { doNotFollow: { path: 'node_modules' }, tsPreCompilationDeps: true, tsConfig: { fileName: 'tsconfig.json' }, enhancedResolveOptions: { extensions: ['.ts', '.mjs', '.js'] } },
};
