import { keepCompiledCode } from "./compiled-code-io.ts";

// Before any other file of ours is loaded: it is their code that is kept.
keepCompiledCode();
await import("./program.ts");
