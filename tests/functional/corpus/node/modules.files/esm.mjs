export const url = import.meta.url;
export default await Promise.resolve('top-level await');
