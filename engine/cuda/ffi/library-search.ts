/**
 * Where the CUDA libraries lie: a folder that the operator names, LD_LIBRARY_PATH, the CUDA toolkit, the
 * nvidia/ folders of Python environments, the system's folders. Loads nothing. Called by the ffi/ files through
 * shared-library.ts.
 */
import { readdirSync } from 'node:fs';
import { homedir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';

export interface SearchSettings {
  /** Folder that is searched first; '' for none. */
  readonly folder: string;
  readonly environment: Readonly<Record<string, string | undefined>>;
}

export interface FoundLibrary {
  /** Full path, or null. */
  readonly path: string | null;
  /** Every folder that was looked into, in order. */
  readonly searched: readonly string[];
}

const SYSTEM_FOLDERS = ['/usr/lib/x86_64-linux-gnu', '/usr/lib/aarch64-linux-gnu', '/usr/lib64', '/usr/lib/wsl/lib', '/usr/local/nvidia/lib64', '/usr/local/nvidia/lib', '/usr/lib'];

/** `stem`: 'libnvrtc' finds libnvrtc.so and libnvrtc.so.13; of one folder the highest version. */
export function findLibrary(stem: string, settings: SearchSettings): FoundLibrary {
  const searched = searchFolders(settings);
  for (const folder of searched) {
    const names = entries(folder).filter((name) => name === `${stem}.so` || name.startsWith(`${stem}.so.`));
    const best = names.toSorted((a, b) => versionOf(b, stem) - versionOf(a, stem) || a.length - b.length)[0];
    if (best !== undefined) return { path: join(folder, best), searched };
  }
  return { path: null, searched };
}

export function searchFolders({ folder, environment }: SearchSettings): readonly string[] {
  const toolkits = [environment['CUDA_HOME'], environment['CUDA_PATH'], '/usr/local/cuda', ...below('/usr/local', /^cuda-/)];
  const folders = [
    folder,
    ...(environment['LD_LIBRARY_PATH'] ?? '').split(delimiter),
    ...toolkits.filter((root) => root !== undefined && root !== '').flatMap((root) => [join(root!, 'lib64'), join(root!, 'lib')]),
    ...pythonRoots(environment).flatMap(nvidiaFolders),
    ...SYSTEM_FOLDERS,
  ];
  return [...new Set(folders.filter((path) => path !== ''))];
}

/** Folders above the lib/pythonX.Y of environments: the active one, those on the PATH, the user's own. */
function pythonRoots(environment: SearchSettings['environment']): string[] {
  const onPath = (environment['PATH'] ?? '').split(delimiter).filter((dir) => entries(dir).some((name) => /^python3?$/.test(name))).map(dirname);
  const active = [environment['VIRTUAL_ENV'], environment['CONDA_PREFIX']].filter((root) => root !== undefined && root !== '') as string[];
  return [...active, ...onPath, join(homedir(), '.local')];
}

/** lib/python3.12/site-packages/nvidia/cu13/lib and its likes. */
function nvidiaFolders(root: string): string[] {
  return below(join(root, 'lib'), /^python3/).flatMap((python) =>
    ['site-packages', 'dist-packages'].flatMap((packages) => below(join(python, packages, 'nvidia'), /./).map((part) => join(part, 'lib'))));
}

function below(folder: string, pattern: RegExp): string[] {
  return entries(folder).filter((name) => pattern.test(name)).map((name) => join(folder, name));
}

/** Names in a folder; none where it is not there or may not be read: it is then no place to find a library. */
function entries(folder: string): readonly string[] {
  try {
    return readdirSync(folder).toSorted();
  } catch {
    return [];
  }
}

/** libnvrtc.so.13 -> 13, libnvrtc.so.13.0.48 -> 13, libnvrtc.so -> 0 */
function versionOf(name: string, stem: string): number {
  return Number.parseInt(name.slice(`${stem}.so.`.length), 10) || 0;
}
