console.log('neighbour', __filename, module.parent && module.parent.id, require.main.filename);
exports.value = 42;
