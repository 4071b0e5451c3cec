module.exports = { up: require('../neighbour'), name: __filename };
